"""Do the cycles of cc-cdfsl gain where patches carry text, and where the last block moves?

Example: python benchmarks/cycles.py patches heads last-block

patches     the share of patches whose nearest text is that of their image, before the map and after
heads       16 and 4 shots: the head with cycles, without the map and with it, minus the control
last-block  as `heads`, with `adapter=lora`
episodes    1 and 5 shots: as `heads`, over episodes of 5 ways from the shifts
test        as `heads`, 16 shots, on the test split

The first three look at fieldguide's validation images, and at those of train that are no shots:
defaults are chosen on them. Intervals of these are over the queries, draws taken as they are.
Caches go to --home; `--world fieldguide-2` is for the last two.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featcache.draws import few_shot
from featcache.pipeline.run import Request, extract
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.answering import query_needs
from heads.patch_map import mapped, patch_map
from heads.protocols import episodic, training
from heads.reading import read_rows
from heads.results.compare.pairing import paired_difference
from heads.results.record import Result

SEEDS = (1, 2, 3)
SHIFTS = ("sketch", "night", "scan")
VARIANTS = ("clearclip", "vanilla", "maskclip")
RIDGE = 1e-4
CONTROL: Mapping[str, Any] = {"control": "augment-only"}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "cycles on patches as they are": {"patch_map": "none"},
    "cycles on mapped patches": {},
    "cycles on mapped patches, corpus": {"anchors": "corpus"},
    "cycles on mapped vanilla patches": {"variant": "vanilla"},
}
LORA: Mapping[str, Any] = {"adapter": "lora", "lr": 0.003, "identity": 1.0}
LORA_WAYS: Mapping[str, Mapping[str, Any]] = {
    "cycles on mapped patches": {},
    "cycles on patches as they are": {"patch_map": "none"},
    "cycles on mapped patches, weights 1 1": {"lam_text": 1.0, "lam_image": 1.0},
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {
        "patches": patches,
        "heads": on_validation,
        "last-block": last_blocks,
        "episodes": in_episodes,
        "test": on_test,
    }
    parser.add_argument("parts", nargs="+", choices=parts)
    parser.add_argument("--world", default="fieldguide")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--shots", type=int, nargs="+", help="images a class; else as above")
    parser.add_argument("--splits", nargs="+", default=SHIFTS, choices=SHIFTS)
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    arguments = parser.parse_args()
    root = cache_root(arguments.home)
    asked = arguments.splits if "episodes" in arguments.parts else ()
    shifts = tuple(f"4:cdfsl@{split}" for split in asked)
    request = Request(
        dataset=arguments.world,
        backbone=arguments.backbone,
        views=("4:cdfsl", *shifts),
        view_patches=("4:cdfsl", "4:cdfsl:vanilla", *shifts),
        patches=VARIANTS,
        tokens=("last-block",) if "last-block" in arguments.parts else (),
        root=root,
    )
    extract(request)
    features = find_cache(root, arguments.world, arguments.backbone).feature_set()
    for part in arguments.parts:
        for row in parts[part](features, arguments):
            print(f"| {' | '.join(row)} |", flush=True)


def unseen(features: FeatureSet, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a draw, and those of validation and train that it leaves."""
    drawn = few_shot(features.listing, shots, seed, usable=features.ok).train_rows
    train = features.usable("train")
    return drawn, np.concatenate([features.usable("val"), train[~np.isin(train, drawn)]])


def labels_of(features: FeatureSet, rows: np.ndarray) -> Tensor:
    """Return the labels of some rows."""
    return torch.from_numpy(features.labels[rows].astype(np.int64))


def patches(features: FeatureSet, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Map the patches of validation images by what the clean shots taught."""
    assert features.text is not None
    texts, val = features.text.anchors(), features.usable("val")
    y = labels_of(features, val)
    for variant in VARIANTS:
        rows = features.unit(f"patches.{variant}", val)
        cells = [right(rows, texts, y)]
        for shots in (1, 4, 16):
            found = []
            for seed in SEEDS:
                drawn, _ = unseen(features, shots, seed)
                known = labels_of(features, drawn)
                taught = [features.unit(f"patches.{variant}", drawn)]
                change = patch_map(taught, known, torch.ones(len(drawn)), texts, RIDGE)
                found.append(right(mapped(rows, change), texts, y))
            cells.append(sum(found) / len(found))
        yield variant, *(f"{100 * cell:.1f}" for cell in cells)


def right(rows: Tensor, texts: Tensor, y: Tensor) -> float:
    """Return the share of patches [n p d] whose nearest text is that of their image."""
    return float(((rows @ texts.mT).argmax(-1) == y[:, None]).float().mean())


def on_validation(features: FeatureSet, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Train heads on a few shots and ask them about what is left of train and validation."""
    for shots in arguments.shots or (16, 4):
        control = hits(features, shots, CONTROL)
        yield str(shots), "control", f"{100 * np.concatenate(control).mean():.1f}", ""
        for name, settings in WAYS.items():
            yield str(shots), name, *against(hits(features, shots, settings), control)


def hits(features: FeatureSet, shots: int, settings: Mapping[str, Any]) -> list[np.ndarray]:
    """Return for each seed which unseen images a head gets right."""
    made = training.train(
        "cc-cdfsl",
        features=features,
        shots=shots,
        seeds=SEEDS,
        split="val",
        selection="none",
        settings=settings,
    )
    found = []
    for seed, head in zip(SEEDS, made.heads[0], strict=True):
        _, rows = unseen(features, shots, seed)
        asked = read_rows(features, rows, "query", query_needs(head), head.device)
        found.append((head.predict(asked).numpy() == features.labels[rows]).astype(float))
    return found


def against(ours: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> tuple[str, str]:
    """Return top-1 and the difference with its interval, over the queries of all seeds."""
    gaps = [one - other for one, other in zip(ours, others, strict=True)]
    mean = float(np.mean([gap.mean() for gap in gaps]))
    half = 1.96 * float(np.sqrt(sum(gap.var() / len(gap) for gap in gaps))) / len(gaps)
    top1 = f"{100 * np.mean([one.mean() for one in ours]):.1f}"
    return top1, points(mean, mean - half, mean + half)


def points(mean: float, low: float, high: float) -> str:
    """Write a difference with its interval in points."""
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def last_blocks(features: FeatureSet, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """As `heads`, with LoRA of the last block on cached tokens in the place of the head."""
    for shots in arguments.shots or (16, 4):
        control = hits(features, shots, {**LORA, **CONTROL})
        yield str(shots), "control", f"{100 * np.concatenate(control).mean():.1f}", ""
        for name, settings in LORA_WAYS.items():
            found = hits(features, shots, {**LORA, **settings})
            yield str(shots), name, *against(found, control)


def in_episodes(features: FeatureSet, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Compare over episodes of the shifts."""
    for split in arguments.splits:
        for shots in arguments.shots or (1, 5):

            def run(settings: Mapping[str, Any], split: str = split, shots: int = shots) -> Result:
                return episodic.run(
                    "cc-cdfsl",
                    features=features,
                    shots=shots,
                    episodes=arguments.episodes,
                    split=split,
                    settings=settings,
                )

            yield from compared((arguments.world, split, str(shots)), run)


def on_test(features: FeatureSet, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Compare 16-shot heads on the test split."""

    def run(settings: Mapping[str, Any]) -> Result:
        return training.run("cc-cdfsl", features=features, shots=16, seeds=SEEDS, settings=settings)

    yield from compared((arguments.world, "test", "16"), run)


def compared(place: tuple[str, ...], run: Any) -> Iterator[tuple[str, ...]]:
    """Run every way once, and set each against the control and the mapped one against the other."""
    control = run(CONTROL)
    done = {name: run(WAYS[name]) for name in list(WAYS)[:2]}
    before, after = done.values()
    cells = [f"{100 * result.metrics['top1'].mean:.1f}" for result in (before, after)]
    for one, other in ((before, control), (after, control), (after, before)):
        gap = paired_difference(one, other)
        cells.append(points(gap.mean, gap.low, gap.high))
    print(after.notes, file=sys.stderr)
    yield *place, *cells


if __name__ == "__main__":
    main()
