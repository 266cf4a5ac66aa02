"""Every few-shot method on imported CLIP features, and beside the authors' released codes.

Example: python benchmarks/baselines.py --features features

FOLDER holds imagenet256_vitb32.npz, caltech50_vitb32.npz, oxford_flowers_vitb32.npz,
fgvc_vitb32.npz and caltech101_vitb32.npz. Prints the tables of docs/benchmarks.md in Markdown.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import FeatcacheError, MissingComponentError
from featcache.importers.npz import import_npz
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.core import registry
from heads.protocols import few_shot
from heads.results import store
from heads.results.record import Result
from heads.results.statistics import Difference, paired_difference

BACKBONE = "ViT-B/32"
WITH_TEXT = (("imagenet256", 4), ("caltech50", 1), ("caltech50", 4), ("caltech50", 16))
IMAGES_ONLY = tuple((d, k) for d in ("flowers", "aircraft", "caltech101") for k in (1, 4, 16))
FILES = {
    "imagenet256": "imagenet256_vitb32.npz",
    "caltech50": "caltech50_vitb32.npz",
    "flowers": "oxford_flowers_vitb32.npz",
    "aircraft": "fgvc_vitb32.npz",
    "caltech101": "caltech101_vitb32.npz",
}
SEED = 1
"""The draws are stored with the data, so one seed is all there is."""

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
    ("ape", ""): (73.24, 96.81, 97.78, 97.43),
    ("ape-t", ""): (73.83, 96.74, 97.15, 97.64),
    ("proker", ""): (73.83, 96.32, 98.27, 97.71),
    ("transclip", ""): (74.61, 94.73, 97.29, 96.18),
}
"""(method, settings) -> top-1 in percent of the authors' code on the same rows, as WITH_TEXT."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One data set at some shots."""

    dataset: str
    shots: int

    @property
    def title(self) -> str:
        """Name it in a table's head."""
        return f"{self.dataset} {self.shots}"


def main() -> None:
    """Train everything, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--home", type=Path, help="caches and runs; else as FEATCACHE_HOME says")
    parser.add_argument("--methods", nargs="*", default=list(registry.names()))
    parser.add_argument("--only", choices=("text", "images", "released"), help="one table")
    arguments = parser.parse_args()
    root = cache_root(arguments.home)
    bench = Bench(root, arguments.features, arguments.methods)
    if arguments.only in (None, "text"):
        columns = [Column(dataset=d, shots=k) for d, k in WITH_TEXT]
        print(table(bench.all(columns, "few-shot-val"), columns, "zero-shot"))
    if arguments.only in (None, "images"):
        columns = [Column(dataset=d, shots=k) for d, k in IMAGES_ONLY]
        print(table(bench.all(columns, "few-shot-val"), columns, "linear-probe"))
    if arguments.only in (None, "released"):
        print(beside_released(bench))


class Bench:
    """Trains methods on imported features and keeps the records."""

    def __init__(self, root: Path, folder: Path, methods: Sequence[str]) -> None:
        self.root, self.folder, self.methods = root, folder, methods
        self.runs = store.runs_root(None)
        self._opened: dict[str, FeatureSet] = {}

    def features(self, dataset: str) -> FeatureSet:
        """Open a data set's features, imported where they are not yet."""
        if dataset not in self._opened:
            import_npz(self.folder / FILES[dataset], self.root, dataset, BACKBONE)
            self._opened[dataset] = find_cache(self.root, dataset, BACKBONE).feature_set()
        return self._opened[dataset]

    def one(self, method: str, column: Column, selection: str, settings: str = "") -> Result | None:
        """Train once; None where the data lack what the method reads."""
        given = dict(pair.split("=", 1) for pair in settings.split())
        try:
            result = few_shot.run(
                method,
                feature_set=self.features(column.dataset),
                shots=column.shots,
                seeds=(SEED,),
                selection=selection,
                settings=given,
            )
        except MissingComponentError:
            return None
        except FeatcacheError as error:
            print(f"{method} {column.title}: {error}", file=sys.stderr, flush=True)
            return None
        top1, took = 100 * result.metrics["top1"].mean, sum(result.seconds.values())
        told = f"{method} {settings} {column.title} {selection}: {top1:.2f}, {took:.1f} s"
        print(told, file=sys.stderr, flush=True)
        return result

    def all(self, columns: Iterable[Column], selection: str) -> dict[tuple[str, str], Result]:
        """Train every method on every column."""
        found = {}
        for column in columns:
            for method in self.methods:
                result = self.one(method, column, selection)
                if result is not None:
                    found[method, column.title] = result
        return found


def table(
    results: Mapping[tuple[str, str], Result], columns: Sequence[Column], reference: str
) -> str:
    """Write top-1 in percent and, over the queries, the word for the difference to a reference."""
    titles = [c.title for c in columns]
    head = ["method", *titles, "seconds"]
    lines = [_line(head), _line(["---"] * len(head))]
    methods = dict.fromkeys(method for method, _ in results)

    def rank(method: str) -> tuple[bool, float]:
        mine = [results[method, t] for t in titles if (method, t) in results]
        return mine[0].transductive, -sum(r.metrics["top1"].mean for r in mine) / len(mine)

    for method in sorted(methods, key=rank):
        here = [results.get((method, title)) for title in titles]
        cells = [
            "-" if r is None else _cell(r, results.get((reference, t)), method == reference)
            for r, t in zip(here, titles, strict=True)
        ]
        took = max(sum(r.seconds.values()) for r in here if r is not None)
        marks = next(r for r in here if r is not None)
        name = f"{method} (transductive)" if marks.transductive else method
        lines.append(_line([name, *cells, f"{took:.1f}"]))
    return "\n".join(lines) + f"\n\nWords: against {reference}, paired over the queries.\n"


def beside_released(bench: Bench) -> str:
    """Write our top-1 under full-val beside the released code's, and the gap in standard errors."""
    columns = [Column(dataset=d, shots=k) for d, k in WITH_TEXT]
    head = ["method", *(c.title for c in columns), "largest gap, standard errors"]
    lines = [_line(head), _line(["---"] * len(head))]
    for (method, settings), published in RELEASED.items():
        if method not in bench.methods:
            continue
        cells, worst = [], 0.0
        for column, theirs in zip(columns, published, strict=True):
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
    return "\n".join(lines) + "\n\nCells: ours / the released code.\n"


def _cell(result: Result, reference: Result | None, is_reference: bool) -> str:
    top1 = f"{100 * result.metrics['top1'].mean:.1f}"
    if is_reference or reference is None:
        return top1
    difference: Difference = paired_difference(result, reference)
    return f"{top1} {difference.word}"


def _line(values: Iterable[str]) -> str:
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
