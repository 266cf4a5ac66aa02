"""Every method against what it has to beat: paired differences with 95 % intervals.

Example: python benchmarks/methods.py --features features

Prints the tables of docs/benchmarks.md in Markdown: the drawn worlds and their shifts, episodes of
five ways on the shifts, and imported CLIP features. Caches go to --home, so that asking again
trains anew but encodes nothing. Intervals are not adjusted for how many rows a table has; better
and worse are (Holm).
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.imported import imported
from featcache.pipeline.run import Request, extract
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.protocols import episodic, training
from heads.results.compare.pairing import paired_difference, words
from heads.results.record import Result

WORLDS = ("fieldguide", "fieldguide-2")
SHIFTS = ("sketch", "night", "scan")
IMPORTED = {"imagenet256": (1, 2, 4), "caltech50": (1, 2, 4, 8, 16)}
SEEDS = (1, 2, 3)
EPISODES = 400
VIEWS = ("10", "8:strong", "1:weak", *(f"4:cdfsl@{split}" for split in SHIFTS))
CROPS = ("60:lazsl@query", "16:fair")
VIEW_PATCHES = tuple(f"4:cdfsl@{split}" for split in SHIFTS)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A method with its settings."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


ZERO_SHOT = Way(name="zero-shot", method="zero-shot")
TIP = Way(name="tip-adapter", method="tip-adapter")
TIP_F = Way(name="tip-adapter-f", method="tip-adapter-f")
CMM = Way(name="cmm", method="cmm")
DAC_V = Way(name="dac v", method="dac", settings={"stage": "v"})
DAC_VT = Way(name="dac vt", method="dac", settings={"stage": "vt"})
FAIR = Way(name="fair", method="fair", settings={"student": "anchors", "teacher": "weighted"})
LAZSL = Way(name="lazsl", method="lazsl", settings={"select": "paper"})
"""As published, or nearest to it; `sharpened` measures what became of them."""
CYCLES = Way(name="cc-cdfsl", method="cc-cdfsl")

ON_WORLDS = (
    (LAZSL, Way(name="description mean", method="zero-shot")),
    (
        LAZSL,
        Way(
            name="mean of the same crops",
            method="lazsl",
            settings={"theta": 1.0, "select": "all", "reg": 1000.0},
        ),
    ),
    (FAIR, Way(name="its own start", method="fair", settings={"student": "anchors", "epochs": 0})),
    (DAC_V, TIP),
    (DAC_V, TIP_F),
    (DAC_VT, TIP),
    (DAC_VT, TIP_F),
    (DAC_VT, DAC_V),
    (CMM, ZERO_SHOT),
    (CMM, Way(name="cmm without map", method="cmm", settings={"train_map": "false"})),
    (CMM, Way(name="cmm without text", method="cmm", settings={"train_text": "false"})),
    (CMM, Way(name="cmm without triplet", method="cmm", settings={"triplet": "false"})),
    (CMM, Way(name="cmm without fusion", method="cmm", settings={"fusion": "false"})),
    (CMM, Way(name="cmm from ridge", method="cmm", settings={"init": "ridge"})),
    (CMM, Way(name="cmm from procrustes", method="cmm", settings={"init": "procrustes"})),
)
ON_IMPORTED = ((CMM, ZERO_SHOT), (CMM, TIP), (DAC_V, TIP), (DAC_VT, TIP), (DAC_VT, ZERO_SHOT))
IN_EPISODES = (
    (CYCLES, Way(name="augment-only", method="cc-cdfsl", settings={"control": "augment-only"})),
    (CYCLES, ZERO_SHOT),
)
POOLED = (TIP, TIP_F, CMM, DAC_V, DAC_VT)
"""Methods that start from texts: few-shot validation should keep them from losing to zero-shot."""


def main() -> None:
    """Bring the caches up to date, train, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with imagenet256_vitb32.npz, ...")
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    parser.add_argument("--only", nargs="*", choices=("worlds", "episodes", "imported"))
    arguments = parser.parse_args()
    parts = arguments.only or ("worlds", "episodes", "imported")
    root = cache_root(arguments.home)
    if "worlds" in parts:
        show("shots 16, seeds 1-3", ("data set", "split"), on_worlds(root))
    if "episodes" in parts:
        show(f"{EPISODES} episodes of 5 ways", ("data set", "split", "shots"), in_episodes(root))
    if "imported" in parts and arguments.features:
        show("imported features", ("data set", "shots"), on_imported(root, arguments.features))


Row = tuple[tuple[str, ...], Way, Way, Result, Result]


def on_worlds(root: Path) -> Iterator[Row]:
    """Compare on the test split and the shifts of both worlds."""
    for world in WORLDS:
        features = of_world(world, root)
        for split in ("test", *SHIFTS):
            run = Runs(features, shots=16, split=split)
            for ours, other in ON_WORLDS:
                yield (world, split), ours, other, run(ours), run(other)


def in_episodes(root: Path) -> Iterator[Row]:
    """Compare over episodes drawn from the shifts."""
    for world in WORLDS:
        features = of_world(world, root)
        for split in SHIFTS:
            for shots in (1, 5):
                trained = {
                    way.name: episodic.train(
                        way.method,
                        features=features,
                        shots=shots,
                        episodes=EPISODES,
                        split=split,
                        settings=way.settings,
                    ).result
                    for pair in IN_EPISODES
                    for way in pair
                }
                for ours, other in IN_EPISODES:
                    place = (world, split, str(shots))
                    yield place, ours, other, trained[ours.name], trained[other.name]


def on_imported(root: Path, folder: Path) -> Iterator[Row]:
    """Compare on real CLIP features, and pool the differences to zero-shot."""
    gains: dict[str, list[np.ndarray]] = {way.name: [] for way in POOLED}
    for name, all_shots in IMPORTED.items():
        features = imported(name, folder, root)
        for shots in all_shots:
            run = Runs(features, shots=shots, split="test")
            for ours, other in ON_IMPORTED:
                yield (name, str(shots)), ours, other, run(ours), run(other)
            for way in POOLED:
                kept = run(way).predictions
                assert kept is not None
                assert kept.zero_shot is not None
                gain = (kept.predicted == kept.labels).astype(float)
                gains[way.name].append(gain[0] - (kept.zero_shot == kept.labels)[0])
    print("\n| over all of these | minus zero-shot, points |\n|---|---|")
    for name, parts in gains.items():
        print(f"| {name} | {_points(*pooled(parts))} |")


def pooled(parts: list[np.ndarray]) -> tuple[float, float, float]:
    """Return the mean over cases and its 95 % interval, queries drawn anew within each case."""
    rng = np.random.default_rng(0)
    drawn = [
        np.mean([part[rng.integers(len(part), size=len(part))].mean() for part in parts])
        for _ in range(1000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([part.mean() for part in parts])), float(low), float(high)


class Runs:
    """Trained methods on one split; each is trained once."""

    def __init__(self, features: FeatureSet, *, shots: int, split: str) -> None:
        self._features, self._shots, self._split = features, shots, split
        self._results: dict[str, Result] = {}

    def __call__(self, way: Way) -> Result:
        """Train a method, or return what it gave before."""
        if way.name not in self._results:
            self._results[way.name] = training.run(
                way.method,
                features=self._features,
                shots=self._shots,
                seeds=SEEDS,
                split=self._split,
                settings=way.settings,
            )
        return self._results[way.name]


def of_world(world: str, root: Path) -> FeatureSet:
    """Encode what the methods need of a drawn world."""
    request = Request(
        dataset=world,
        backbone="tiny",
        views=VIEWS,
        crops=CROPS,
        view_patches=VIEW_PATCHES,
        root=root,
    )
    extract(request)
    return find_cache(root, world, "tiny").feature_set()


def show(title: str, places: tuple[str, ...], rows: Iterator[Row]) -> None:
    """Print one table; its figures go to stderr as they come."""
    cells, differences = [], []
    for place, ours, other, result, rival in rows:
        d = paired_difference(result, rival)
        top1 = f"{100 * result.metrics['top1'].mean:.1f}"
        cells.append((*place, ours.name, top1, other.name, _points(d.mean, d.low, d.high)))
        differences.append(d)
        print(cells[-1], file=sys.stderr, flush=True)
    head = (*places, "method", "top-1 %", "minus", "points", "")
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row, word in zip(cells, words(differences), strict=True):
        print(f"| {' | '.join((*row, str(word)))} |", flush=True)


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    main()
