"""Does a corpus help? Few-shot methods with and without one, paired query by query.

Example: python benchmarks/augmentation.py --features features --home /tmp/augmentation

On fieldguide at 1, 2 and 4 shots, with a corpus of other worlds (the species of fieldguide-2, and
1,440 drawings of moths of no species, drawn here with a seed of their own), and with one of its own
training images without their labels; with --features, the folder that holds
imagenet256_vitb32.npz, also on imagenet256 at 1 and 2 shots with its unused training images. Each
method is trained without a corpus and with corpus rows of weight 1 and 0.3. Prints the table of
docs/benchmarks.md in Markdown; words are corrected by Holm over the whole table. The shots of a
repetition are left out of its corpus.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.imported import FILES, imported
from featcache.backbones.tiny.corpus import sample_moth
from featcache.pipeline.run import Request as Extraction
from featcache.pipeline.run import extract
from featcache.retrieval.corpora.build import build_corpus
from featcache.retrieval.corpora.origins import Origin
from featcache.sources.fieldguide.draw import draw, sample_scene
from featcache.sources.fieldguide.world import SIZE
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.augmentation import Augmentation
from heads.protocols.plan import Request
from heads.protocols.sweep import sweep
from heads.results.compare.pairing import (
    Difference,
    difference_to_zero_shot,
    paired_difference,
    words,
)
from heads.results.record import Result

METHODS = ("tip-adapter", "cmm", "gda", "proker")
ALONE = ("sus-x", "neural-priming")
"""Methods that learn from a corpus without shots; compared with zero-shot."""
WEIGHTS = (1.0, 0.3)
SEEDS = (1, 2, 3)
"""Draws on fieldguide; the shots of imagenet256 came with the data, the same for every seed."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set, or some splits of it, whose rows may enter a corpus; its labels are not read."""

    dataset: str
    splits: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set, the shots it is measured at, and the corpora for it by name."""

    dataset: str
    shots: tuple[int, ...]
    corpora: dict[str, tuple[Source, ...]]


THIRD = "fieldguide-3"
"""Drawn by this benchmark: moths that differ from every species in two traits or more."""
THIRD_IMAGES = 1_440
OTHER = (Source(dataset="fieldguide-2"), Source(dataset=THIRD))
OWN = Source(dataset="fieldguide", splits=("train",))
DRAWN = Case(
    dataset="fieldguide",
    shots=(1, 2, 4),
    corpora={"other-worlds": OTHER, "own-train": (OWN,)},
)
IMPORTED = Case(
    dataset="imagenet256",
    shots=(1, 2),
    corpora={"own-train": (Source(dataset="imagenet256", splits=("train",)),)},
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One difference of the table."""

    case: str
    method: str
    against: str
    before: float
    """Top-1 without the corpus, in [0, 1]."""
    result: Result
    difference: Difference


def main() -> None:
    """Build the corpora, train everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with imagenet256_vitb32.npz")
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--alone", nargs="*", default=ALONE)
    parser.add_argument("--shots", nargs="*", type=int, help="only these")
    parser.add_argument("-k", type=int, default=16, help="most corpus rows of a class")
    arguments = parser.parse_args()
    bench = Bench(cache_root(arguments.home), arguments.features, arguments.k)
    cases = [DRAWN, IMPORTED] if arguments.features else [DRAWN]
    lines = [
        line
        for case in cases
        for line in bench.lines(case, arguments.methods, arguments.alone, arguments.shots)
    ]
    print(table(lines))


def draw_third(folder: Path) -> Path:
    """Draw the third world where it is not there yet: one class, whose name is never read."""
    images = folder / "train" / "moth"
    images.mkdir(parents=True, exist_ok=True)
    for i in range(THIRD_IMAGES):
        path = images / f"{i:04d}.jpg"
        if not path.exists():
            rng = random.Random(f"{THIRD}/{i}")
            Image.fromarray(draw(sample_moth(rng), sample_scene(rng), size=SIZE).pixels).save(path)
    return folder


class Bench:
    """Caches, corpora and runs, each made when it is asked for and kept under one root."""

    def __init__(self, root: Path, folder: Path | None, k: int) -> None:
        self.root, self.folder, self.k = root, folder, k
        self.runs = root.with_name(f"{root.name}-runs")
        self._opened: dict[str, FeatureSet] = {}

    def features(self, dataset: str) -> FeatureSet:
        """Open a data set's features, encoded or imported where they are not yet."""
        if dataset not in self._opened:
            if dataset in FILES:
                self._opened[dataset] = imported(dataset, self.folder, self.root)
            else:
                if dataset == THIRD:
                    source = f"folder:{draw_third(self.root.with_name(THIRD))}"
                else:
                    source = dataset
                extract(Extraction(dataset=source, name=dataset, backbone="tiny", root=self.root))
                self._opened[dataset] = find_cache(self.root, dataset, "tiny").feature_set()
        return self._opened[dataset]

    def build(self, case: Case, name: str) -> None:
        """Build a corpus in the cache of the data set."""
        sources = [
            Origin(features=self.features(source.dataset), splits=source.splits)
            for source in case.corpora[name]
        ]
        build_corpus(name, self.features(case.dataset), sources, k=self.k, again=True)

    def run(self, case: Case, method: str, shots: int, corpus: Augmentation | None) -> Result:
        """Train and evaluate a method, unless an equal run is there.

        Raises:
            RuntimeError: If it failed.
        """
        request = Request(
            method=method,
            features=self.features(case.dataset),
            shots=shots,
            seeds=SEEDS,
            augment=None if corpus is None else str(corpus),
        )
        (entry,) = sweep([request], root=self.runs)
        if entry.result is None:
            raise RuntimeError(f"{method}, {case.dataset}, {shots} shots: {entry.error}")
        told = "" if corpus is None else f" {corpus}"
        top1 = 100 * entry.result.metrics["top1"].mean
        print(f"{case.dataset} {shots} {method}{told}: {top1:.2f}", file=sys.stderr, flush=True)
        return entry.result

    def lines(
        self, case: Case, methods: Sequence[str], alone: Sequence[str], only: Sequence[int] | None
    ) -> Iterator[Line]:
        """Yield the differences of a case."""
        for name in case.corpora:
            self.build(case, name)
        for shots in [k for k in case.shots if only is None or k in only]:
            for method in methods:
                plain = self.run(case, method, shots, None)
                for corpus in _augmentations(case):
                    result = self.run(case, method, shots, corpus)
                    yield Line(
                        case=f"{case.dataset}, {shots}",
                        method=method,
                        against=method,
                        before=plain.metrics["top1"].mean,
                        result=result,
                        difference=paired_difference(result, plain),
                    )
        for method in alone:
            for corpus in _augmentations(case):
                result = self.run(case, method, 0, corpus)
                assert result.zero_shot_top1 is not None, "both data sets have texts"
                yield Line(
                    case=f"{case.dataset}, 0",
                    method=method,
                    against="zero-shot",
                    before=result.zero_shot_top1,
                    result=result,
                    difference=difference_to_zero_shot(result),
                )


def _augmentations(case: Case) -> list[Augmentation]:
    return [Augmentation(corpus=name, weight=w) for name in case.corpora for w in WEIGHTS]


def table(lines: Sequence[Line]) -> str:
    """Write the lines in Markdown, percent and percentage points."""
    head = ("data, shots", "method", "corpus", "rows", "weight", "without", "with", "difference")
    text = [_row([*head, ""]), _row(["---"] * (len(head) + 1))]
    said = words([line.difference for line in lines])
    for line, word in zip(lines, said, strict=True):
        use, d = line.result.corpus, line.difference
        assert use is not None, "every line has a corpus"
        without = f"{100 * line.before:.1f}"
        text.append(
            _row(
                [
                    line.case,
                    line.method,
                    use.name,
                    str(use.rows),
                    f"{use.weight:g}",
                    without if line.against == line.method else f"{without} ({line.against})",
                    f"{100 * line.result.metrics['top1'].mean:.1f}",
                    f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]",
                    word or "",
                ]
            )
        )
    told = f"Words at 5 %, corrected for {len(lines)} differences (Holm); intervals are not."
    return "\n".join(text) + f"\n\n{told}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
