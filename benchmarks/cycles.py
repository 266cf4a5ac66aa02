"""Do the cycles of cc-cdfsl gain where patches carry text, and where the last block moves?

Example: python benchmarks/cycles.py patches heads last-block

patches     the share of patches whose nearest text is that of their image, before the map and after
heads       16 and 4 shots: the head with cycles, without the map and with it, minus the control
last-block  LoRA in the last block on cached tokens, with cycles minus without
episodes    as `heads`, over episodes of 5 ways from the shifts
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
from torch.nn import functional as F

from featcache.draws import few_shot
from featcache.last_block import LastBlock
from featcache.pipeline.run import Request, extract
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.ops.cycles import image_cycle, text_cycle
from heads.patch_map import mapped, patch_map
from heads.protocols import episodic, training
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
RANK, RATE, STEPS, BATCH, IDENTITY, K = 4, 3e-3, 60, 128, 1.0, 10
"""How the last block trains; rate and identity were chosen on validation rows without cycles."""
CYCLES = ((0.2, 0.5), (1.0, 1.0))
"""Weights of the two cycles of the last block."""


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
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--splits", nargs="+", default=SHIFTS, choices=SHIFTS)
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    arguments = parser.parse_args()
    root = cache_root(arguments.home)
    asked = arguments.splits if "episodes" in arguments.parts else ()
    shifts = tuple(f"4:cdfsl@{split}" for split in asked)
    request = Request(
        dataset=arguments.world,
        backbone="tiny",
        views=("4:cdfsl", *shifts),
        view_patches=("4:cdfsl", "4:cdfsl:vanilla", *shifts),
        patches=VARIANTS,
        tokens=("last-block",) if "last-block" in arguments.parts else (),
        root=root,
    )
    extract(request)
    features = find_cache(root, arguments.world, "tiny").feature_set()
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
    for shots in (16, 4):
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
        answers = head.predict(features.unit("global", rows)).numpy()
        found.append((answers == features.labels[rows]).astype(float))
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
    """Train the last block with and without cycles."""
    block = features.last_block()
    for shots in (16, 4):
        control = [trained(features, block, shots, seed, (0.0, 0.0)) for seed in SEEDS]
        yield str(shots), "control", f"{100 * np.concatenate(control).mean():.1f}", ""
        for weights in CYCLES:
            ours = [trained(features, block, shots, seed, weights) for seed in SEEDS]
            yield str(shots), "cycles {} {}".format(*weights), *against(ours, control)


def trained(
    features: FeatureSet, block: LastBlock, shots: int, seed: int, lam: tuple[float, float]
) -> np.ndarray:
    """Train LoRA of the attention's matrices, and the texts; tell which unseen images are right.

    The k patches of an image closest to each text go through the cycles, chosen anew at each step;
    without cached tokens of views a patch looks among the others of its own image.
    """
    assert features.text is not None
    rng = torch.Generator().manual_seed(seed)
    drawn, rows = unseen(features, shots, seed)
    y, tokens = labels_of(features, drawn), features.rows("tokens.last-block", drawn).float()
    anchors, scale = features.text.anchors(), features.text.logit_scale
    with torch.no_grad():
        before = block.with_patches(tokens)
    params = {"text": anchors.clone()}
    for name in ("attn.in_proj_weight", "attn.out_proj.weight"):
        out, into = block.tensors[name].shape
        params[f"{name}.a"] = torch.randn(RANK, into, generator=rng) / into**0.5
        params[f"{name}.b"] = torch.zeros(out, RANK)
    for values in params.values():
        values.requires_grad_()
    optimizer = torch.optim.AdamW(params.values(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    batches: list[Tensor] = []
    for _ in range(STEPS):
        batches = batches or list(torch.split(torch.randperm(len(y), generator=rng), BATCH))
        at = batches.pop()
        texts = F.normalize(params["text"], dim=-1)
        x, seen = block.with_patches(tokens[at], adapted(block, params))
        loss = F.cross_entropy(scale * x @ texts.mT, y[at])
        moved = (x, before[0][at]), (seen, before[1][at]), (texts, anchors)
        loss = loss + IDENTITY * sum((1 - (a * b).sum(-1)).mean() for a, b in moved)
        if any(lam):
            loss = loss + cycles(texts, seen, lam)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        parts = np.array_split(rows, 8)
        now = adapted(block, params)
        rest = [block.forward(features.rows("tokens.last-block", p).float(), now) for p in parts]
        answers = (torch.cat(rest) @ F.normalize(params["text"], dim=-1).mT).argmax(-1)
    return (answers == labels_of(features, rows)).double().numpy()


def adapted(block: LastBlock, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the block with what LoRA adds."""
    changed = {name[:-2] for name in params if name.endswith(".a")}
    return {
        name: t + params[f"{name}.b"] @ params[f"{name}.a"] if name in changed else t
        for name, t in block.tensors.items()
    }


def cycles(texts: Tensor, seen: Tensor, lam: tuple[float, float]) -> Tensor:
    """Weigh both cycles of some images' patches [b p d]."""
    cosine = seen @ texts.mT  # [b p c]
    least = cosine.topk(min(K, seen.shape[1]), dim=1).values[:, -1:]  # [b 1 c]
    kept = (cosine >= least).any(-1).float()
    how: Any = {"cycle": "soft", "tau": 0.02, "tau_back": 0.02}
    told, _ = text_cycle(texts, seen, cosine, kept, **how)
    view = torch.zeros(seen.shape[1], dtype=torch.int64)
    shown = image_cycle(texts, seen, cosine, kept, view, retrieval="intra-image", **how)
    return lam[0] * told + lam[1] * shown


def in_episodes(features: FeatureSet, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Compare over episodes of the shifts."""
    for split in arguments.splits:
        for shots in (1, 5):

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
