"""Top-1 of every method, on the drawn worlds and on imported CLIP features.

Example: python benchmarks/accuracy.py --features features

The folder holds imagenet256_vitb32.npz, caltech50_vitb32.npz, oxford_flowers_vitb32.npz,
fgvc_vitb32.npz, caltech101_vitb32.npz and dtd_vitb32.npz; without it the worlds alone are measured.
Prints the tables of docs/benchmarks.md in Markdown: top-1; the five beside the baselines, one of
each chosen on validation; seconds a method; and what the authors' released codes give on the same
rows.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.by_validation import chosen_table
from benchmarks.imported import imported
from benchmarks.methods import CROPS, VIEW_PATCHES, VIEWS
from featcache.pipeline.run import Request, extract
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads import kept, registry
from heads.protocols import plan as heads_plan
from heads.protocols.sweep import sweep
from heads.results import store
from heads.results.compare.pairing import Word, paired_difference, words
from heads.results.record import Result

WORLDS = ("fieldguide", "fieldguide-2")
OF_CORPORA = ("sus-x", "neural-priming")
"""Methods that need a corpus: benchmarks/augmentation.py measures them."""
SEEDS = (1, 2, 3)
"""Draws on the worlds; imported shots are stored, so there every seed gives the same."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One data set at some shots and one test split."""

    dataset: str
    shots: int
    split: str = "test"

    @property
    def title(self) -> str:
        """Name it in a table's head."""
        return " ".join(
            [self.dataset, str(self.shots), *(() if self.split == "test" else [self.split])]
        )


AS_RELEASED = tuple(
    Column(dataset=d, shots=k)
    for d, k in (("imagenet256", 4), ("caltech50", 1), ("caltech50", 4), ("caltech50", 16))
)
TEXT = (*(Column(dataset="imagenet256", shots=k) for k in (1, 2)), *AS_RELEASED)
IMAGES = (
    *(
        Column(dataset=d, shots=k)
        for d in ("flowers", "aircraft", "caltech101")
        for k in (1, 4, 16)
    ),
    Column(dataset="dtd", shots=1),
)

RELEASED: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("zero-shot", ""): (70.12, 96.46, 96.46, 96.46),
    ("linear-probe", ""): (61.7, 86.1, 95.3, 97.2),
    ("tip-adapter", ""): (72.27, 96.67, 97.36, 96.81),
    ("tip-adapter", "alpha=1 beta=5.5"): (70.70, 96.67, 97.16, 97.09),
    ("tip-adapter-f", ""): (74.41, 96.81, 97.22, 97.29),
    ("clip-adapter", ""): (74.22, 96.53, 97.57, 97.57),
    ("cross-modal-linear-probe", ""): (75.00, 96.74, 97.29, 97.64),
    ("lp++", ""): (75.59, 96.53, 97.16, 97.43),
    ("taskres", ""): (74.22, 96.95, 97.22, 97.78),
    ("zs-lp", ""): (74.81, 96.88, 97.22, 97.71),
    ("clap", ""): (75.20, 97.16, 97.36, 97.36),
    ("gda", ""): (73.05, 96.46, 97.78, 97.57),
    ("timo", ""): (74.02, 96.67, 97.99, 97.78),
    ("timo-s", ""): (74.22, 96.18, 98.13, 97.78),
    ("ss-text", "text_length=1"): (58.01, 84.80, 94.03, 94.80),
    ("ss-text", "variant=ss-text-plus"): (72.46, 95.70, 97.36, 95.77),
    ("ape", ""): (73.24, 96.81, 97.78, 97.43),
    ("ape-t", ""): (73.83, 96.74, 97.15, 97.64),
    ("proker", ""): (73.83, 96.32, 98.27, 97.71),
    ("transclip", "variant=code"): (74.61, 94.73, 97.29, 96.18),
    ("transclip", "mode=zero-shot"): (72.66, 94.93, 94.93, 94.93),
}
"""(method, settings) -> top-1 in percent of the authors' code on the same rows, as TEXT."""


def main() -> None:
    """Train everything, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with the .npz files")
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    parser.add_argument(
        "--methods", nargs="*", default=[m for m in registry.names() if m not in OF_CORPORA]
    )
    parser.add_argument(
        "--only", nargs="*", help="tables: fieldguide, fieldguide-2, text, images, released"
    )
    arguments = parser.parse_args()
    bench = Bench(cache_root(arguments.home), arguments.features, arguments.methods)
    tables = {world: world_columns(world) for world in WORLDS}
    if arguments.features:
        tables |= {"text": TEXT, "images": IMAGES}
    for name, columns in tables.items():
        if arguments.only is None or name in arguments.only:
            reference = "linear-probe" if name == "images" else "zero-shot"
            results = bench.all(columns)
            print(f"### {name}\n\n{table(results, columns, reference)}", flush=True)
            print(f"{seconds_table(results, columns)}\n", flush=True)
            if name != "images":
                titles = [c.title for c in columns]
                print(chosen_table(results, bench.validation, titles), flush=True)
    if arguments.features and (arguments.only is None or "released" in arguments.only):
        print(f"### released\n\n{beside_released(bench)}")


def world_columns(world: str) -> tuple[Column, ...]:
    """List what is measured on a drawn world."""
    plain = [Column(dataset=world, shots=k) for k in (1, 4, 16)]
    return (
        *plain,
        *(Column(dataset=world, shots=16, split=s) for s in ("sketch", "night", "scan")),
    )


class Bench:
    """Trains methods on data sets that are brought up to date when they are asked for."""

    def __init__(self, root: Path, folder: Path | None, methods: Sequence[str]) -> None:
        self.root, self.folder, self.methods = root, folder, methods
        self.runs = root.with_name(f"{root.name}-runs")
        """What was measured before a kill is not measured again; delete it to begin anew."""
        self.validation: dict[tuple[str, str], float] = {}
        """(Method, title of a column) -> top-1 on validation rows; inductive methods only."""
        self._opened: dict[str, FeatureSet] = {}

    def features(self, dataset: str) -> FeatureSet:
        """Open a data set's features, encoded or imported where they are not yet."""
        if dataset not in self._opened:
            if dataset in WORLDS:
                extract(
                    Request(
                        dataset=dataset,
                        backbone="tiny",
                        views=VIEWS,
                        crops=CROPS,
                        view_patches=VIEW_PATCHES,
                        root=self.root,
                    )
                )
                self._opened[dataset] = find_cache(self.root, dataset, "tiny").feature_set()
            else:
                self._opened[dataset] = imported(dataset, self.folder, self.root)
        return self._opened[dataset]

    def one(
        self, method: str, column: Column, selection: str = "few-shot-val", settings: str = ""
    ) -> Result | None:
        """Train once; None where the data lack what the method reads."""
        request = heads_plan.Request(
            method=method,
            features=self.features(column.dataset),
            shots=column.shots,
            seeds=SEEDS,
            splits=(column.split,),
            selection=selection,
            settings=dict(pair.split("=", 1) for pair in settings.split()),
        )
        (entry,) = sweep([request], root=self.runs, keep_heads=True)
        if entry.result is None:
            if entry.kind != "MissingComponentError":
                print(f"{method} {column.title}: {entry.error}", file=sys.stderr, flush=True)
            return None
        result = entry.result
        top1, took = 100 * result.metrics["top1"].mean, sum(result.seconds.values())
        told = f"{method} {settings} {column.title} {selection}: {top1:.2f}, {took:.1f} s"
        print(told, file=sys.stderr, flush=True)
        return result

    def all(self, columns: Iterable[Column]) -> dict[tuple[str, str], Result]:
        """Train every method on every column."""
        found = {}
        for column in columns:
            for method in self.methods:
                result = self.one(method, column)
                if result is not None:
                    found[method, column.title] = result
                    if not result.transductive:
                        self.validation[method, column.title] = self.on_validation(method, column)
        return found

    def on_validation(self, method: str, column: Column) -> float:
        """Return top-1 on the rows that chose the settings, or on all validation rows without any.

        The mean over the heads of the column's shots, whatever its test split.
        """
        told = self.one(method, replace(column, split="test"))
        assert told is not None
        folder = store.folder_of(told, self.runs)
        found: list[float | None] = [head.about["validation"] for head in kept.read_all(folder)]
        known = [value for value in found if value is not None]
        if known:
            return sum(known) / len(known)
        judged = self.one(method, replace(column, split="val"), selection="none")
        assert judged is not None
        return judged.metrics["top1"].mean


def table(
    results: Mapping[tuple[str, str], Result], columns: Sequence[Column], reference: str
) -> str:
    """Write top-1 in percent, its interval, and the word for the difference to a reference."""
    titles = [c.title for c in columns]
    said = {title: _words(results, title, reference) for title in titles}
    lines = [_line(["method", *titles]), _line(["---"] * (len(titles) + 1))]

    def rank(method: str) -> tuple[bool, float]:
        mine = [results[method, t] for t in titles if (method, t) in results]
        return mine[0].transductive, -sum(r.metrics["top1"].mean for r in mine) / len(mine)

    for method in sorted(dict.fromkeys(method for method, _ in results), key=rank):
        here = {t: results[method, t] for t in titles if (method, t) in results}
        cells = [_cell(here[t], said[t].get(method)) if t in here else "-" for t in titles]
        mark = " (transductive)" if next(iter(here.values())).transductive else ""
        lines.append(_line([f"{method}{mark}", *cells]))
    told = f"Words: top-1 against {reference}, paired; Holm over the rows of a column."
    return "\n".join(lines) + f"\n\n{told}\n"


def seconds_table(results: Mapping[tuple[str, str], Result], columns: Sequence[Column]) -> str:
    """Write seconds of a repetition with its search, clock, at the largest number of shots."""
    largest = {c.dataset: c for c in sorted(columns, key=lambda c: c.shots) if c.split == "test"}
    titles = [c.title for c in largest.values()]
    lines = [_line(["seconds", *titles]), _line(["---"] * (len(titles) + 1))]
    for method in dict.fromkeys(method for method, _ in results):
        here = [results.get((method, title)) for title in titles]
        cells = ["-" if r is None else f"{r.seconds['fit'] / len(r.seeds):.1f}" for r in here]
        lines.append(_line([method, *cells]))
    return "\n".join(lines)


def _words(
    results: Mapping[tuple[str, str], Result], title: str, reference: str
) -> dict[str, Word | None]:
    """Say who is better or worse in a column; method -> word."""
    base = results.get((reference, title))
    others = {m: r for (m, t), r in results.items() if t == title and m != reference}
    if base is None:
        return {}
    found = words([paired_difference(result, base) for result in others.values()])
    return dict(zip(others, found, strict=True))


def beside_released(bench: Bench) -> str:
    """Write our top-1 under full-val beside the released code's, and the gap in standard errors."""
    head = ["method", *(c.title for c in AS_RELEASED), "largest gap, standard errors"]
    lines = [_line(head), _line(["---"] * len(head))]
    for (method, settings), published in RELEASED.items():
        if method not in bench.methods:
            continue
        cells, worst = [], 0.0
        for column, theirs in zip(AS_RELEASED, published, strict=True):
            result = bench.one(method, column, "full-val", settings)
            if result is None:
                cells.append("-")
                continue
            ours = 100 * result.metrics["top1"].mean
            error = math.sqrt(theirs * (100 - theirs) / result.queries)
            cells.append(f"{ours:.2f} / {theirs:.2f}")
            worst = max(worst, (ours - theirs) / error, key=abs)
        name = f"{method} [{settings}]" if settings else method
        lines.append(_line([name, *cells, f"{worst:+.1f}"]))
    return "\n".join(lines) + "\n\nCells: ours / the released code, top-1 in percent.\n"


def _cell(result: Result, word: Word | None) -> str:
    top1 = result.metrics["top1"]
    text = f"{100 * top1.mean:.1f}" + ("" if top1.ci95 is None else f" ± {100 * top1.ci95:.1f}")
    return text if word is None else f"{text} {_SHORT.get(word, word)}"


_SHORT = {"no difference shown": "·"}
"""Words that would widen a table."""


def _line(values: Iterable[str]) -> str:
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
