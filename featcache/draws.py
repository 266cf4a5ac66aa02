"""Few-shot sampling; all draws of shots are made here.

There are two kinds of data sets (`Listing.draws`):

sampled   shots are drawn from `train` by seed with CoOp's algorithm, so that on CoOp's split files
          seeds 1-3 give exactly CoOp's images;
stored    the few-shot sets came with the data as splits `train@K`; the seed has no effect.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from featcache.errors import TaskError, UsageError
from featcache.keys import Listing

VAL_SHOTS = 4
"""Most validation images per class in CoOp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Support and validation rows of one repetition."""

    train_rows: Int64[np.ndarray, " m"]
    """Support rows grouped by class, in the order of the draw."""
    val_rows: Int64[np.ndarray, " v"]
    """Validation rows; empty if the data set has no `val`."""


def draw(labels: Sequence[int], rows: Sequence[int], shots: int, rng: random.Random) -> list[int]:
    """Draw `shots` rows per class; all rows of a class with fewer.

    Source: CoOp's released `generate_fewshot_dataset`: classes in order of first appearance, one
    `sample` call each, and none for a class of which all rows are used.

    Args:
        labels: Class of each of `rows`, in the same order.
        rows: Rows to draw from; the result depends on their order.
        shots: Images per class.
        rng: Random generator.
    """
    chosen: list[int] = []
    for members in _by_class(labels, rows).values():
        chosen += rng.sample(members, shots) if len(members) >= shots else members
    return chosen


def few_shot(
    listing: Listing,
    shots: int | None,
    seed: int,
    *,
    val_shots: int | None = None,
    usable: Bool[np.ndarray, " n"] | None = None,
) -> Draw:
    """Draw the support and the few-shot validation rows of one repetition.

    Validation is drawn from the same stream after training, as CoOp does. Unusable images do not
    shift the stream: the draw is made as if they were good, then each is replaced by the first
    usable image of its class that was not drawn.

    Args:
        listing: Images, labels and splits.
        shots: Images per class; None for all images of `train` and `val`.
        seed: Seed of the draw; no effect if draws are stored or `shots` is None.
        val_shots: Validation images per class; None for `min(shots, 4)`.
        usable: Rows whose image could be read; None for all.

    Raises:
        UsageError: If `shots` or `val_shots` is below one.
        TaskError: If the data set has no labelled training images.
    """
    for name, value in (("shots", shots), ("val_shots", val_shots)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, or 'all'. Got {value} instead.")
    if val_shots is None and shots is not None:
        val_shots = min(shots, VAL_SHOTS)
    stored = listing.draws == "stored"
    rng = None if stored else random.Random(seed)
    train = _stored_set(listing, shots) if stored else labelled(listing, "train")
    if not len(train):
        have = ", ".join(listing.splits) or "none"
        raise TaskError(
            f"Data set '{listing.dataset}' has no labelled training images to draw from; its "
            f"splits are: {have}. Add a train folder, or use a method that needs no training."
        )
    train_rows = _choose(listing, train, shots, rng, usable)
    val_rows = _choose(listing, labelled(listing, "val"), val_shots, rng, usable)
    return Draw(train_rows=train_rows, val_rows=val_rows)


def thinned(
    draw: Draw, labels: Int64[np.ndarray, " n"], counts: Int64[np.ndarray, " c"], seed: int
) -> Draw:
    """Keep fewer support rows of each class, an imbalanced subset of a draw.

    A class's rows are shuffled by its own stream, named by (seed, class), and the first ones are
    kept: a smaller count keeps a subset of what a larger one keeps. Validation rows stay.

    Args:
        draw: A draw; grouped by class.
        labels: Label of every row of the listing.
        counts: Support rows to keep of each class; all where it has fewer.
        seed: Seed of the subset.
    """
    kept: list[int] = []
    rows = draw.train_rows.tolist()
    for label, members in _by_class(labels[draw.train_rows].tolist(), rows).items():
        digest = hashlib.blake2b(f"thinned/{seed}/{label}".encode(), digest_size=8).digest()
        order = list(members)
        random.Random(int.from_bytes(digest, "big")).shuffle(order)
        chosen = set(order[: int(counts[label])])
        kept += [row for row in members if row in chosen]
    return Draw(train_rows=_rows(kept), val_rows=draw.val_rows)


def cut(
    rows: Int64[np.ndarray, " r"], count: int, seed: int
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " q"]]:
    """Cut rows in two at random, whatever their classes: `count` of them, and the others.

    Any row is as likely in one part as in the other. The same rows and seed give the same parts.

    Args:
        rows: Rows, in any order.
        count: Rows of the first part; at most all.
        seed: Seed of the cut, whose stream is apart from that of the shots.

    Example:
        >>> [len(part) for part in cut(np.arange(5), 2, seed=1)]
        [2, 3]
    """
    digest = hashlib.blake2b(f"cut/{seed}".encode(), digest_size=8).digest()
    order = random.Random(int.from_bytes(digest, "big")).sample(range(len(rows)), len(rows))
    shuffled = np.sort(rows)[order]
    return np.sort(shuffled[:count]), np.sort(shuffled[count:])


def few_shot_rows(
    listing: Listing,
    shots: int | None,
    seeds: Iterable[int],
    *,
    usable: Bool[np.ndarray, " n"] | None = None,
) -> Int64[np.ndarray, " r"]:
    """Return all training rows of draws of up to `shots` images per class, ascending.

    Draws of 1, 2, 4, ... images are not subsets of the largest draw, so their union is returned:
    views computed for 16 shots also serve every smaller power of two.
    """
    counts = [shots]
    if shots is not None:
        counts += [1 << i for i in range(shots.bit_length()) if 1 << i < shots]
    draws = [few_shot(listing, k, seed, usable=usable) for seed in seeds for k in counts]
    rows = [d.train_rows for d in draws]
    union: Int64[np.ndarray, " r"] = np.unique(np.concatenate(rows)) if rows else _rows([])
    return union


def labelled(
    listing: Listing, split: str, usable: Bool[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " r"]:
    """Return the rows of a split that have a label; empty if there is no such split.

    Args:
        listing: Images, labels and splits.
        split: Name of the split.
        usable: Rows whose image could be read; None for all.
    """
    rows = listing.splits.get(split, _rows([]))
    keep = listing.labels[rows] >= 0
    if usable is not None:
        keep &= usable[rows]
    labelled_rows: Int64[np.ndarray, " r"] = rows[keep]
    return labelled_rows


def _stored_set(listing: Listing, shots: int | None) -> Int64[np.ndarray, " r"]:
    """Return the stored set of K shots, else the next larger one, else the largest."""
    sets: dict[int, Int64[np.ndarray, " r"]] = {}
    for name in listing.splits:
        rows = labelled(listing, name)
        if name == "train" and len(rows):
            sets.setdefault(int(np.bincount(listing.labels[rows]).max()), rows)
        elif name.startswith("train@") and name[6:].isdecimal() and len(rows):
            sets[int(name[6:])] = rows
    if not sets:
        return _rows([])
    enough = [k for k in sets if shots is not None and k >= shots]
    return sets[min(enough)] if enough else sets[max(sets)]


def _choose(
    listing: Listing,
    rows: Int64[np.ndarray, " r"],
    shots: int | None,
    rng: random.Random | None,
    usable: Bool[np.ndarray, " n"] | None,
) -> Int64[np.ndarray, " m"]:
    """Choose `shots` rows per class at random, or the first ones if there is no generator."""
    if shots is None:
        return rows if usable is None else rows[usable[rows]]
    labels = listing.labels[rows].tolist()
    if rng is None:
        chosen = [
            r for members in _by_class(labels, rows.tolist()).values() for r in members[:shots]
        ]
    else:
        chosen = draw(labels, rows.tolist(), shots, rng)
    if usable is not None and not usable[chosen].all():
        chosen = _replace_unusable(chosen, labels, rows.tolist(), listing, usable)
    return _rows(chosen)


def _replace_unusable(
    chosen: list[int],
    labels: list[int],
    rows: list[int],
    listing: Listing,
    usable: Bool[np.ndarray, " n"],
) -> list[int]:
    drawn = set(chosen)
    spare = {
        label: iter([r for r in members if r not in drawn and usable[r]])
        for label, members in _by_class(labels, rows).items()
    }
    good = (r if usable[r] else next(spare[int(listing.labels[r])], None) for r in chosen)
    return [r for r in good if r is not None]


def _by_class(labels: Sequence[int], rows: Sequence[int]) -> dict[int, list[int]]:
    members: dict[int, list[int]] = {}
    for label, row in zip(labels, rows, strict=True):
        members.setdefault(label, []).append(row)
    return members


def _rows(rows: Sequence[int]) -> Int64[np.ndarray, " r"]:
    return np.array(rows, dtype=np.int64)
