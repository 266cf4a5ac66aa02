"""Which class takes which vector.

Every class has a list of the vectors nearest to it, LISTED times as long as what it may take. A
vector on the lists of two classes goes to none of them if its cosines with the nearest two differ
by less than a margin. All other pairs (class, vector) are gone through by descending cosine; a
class takes a vector unless another has it or the class is full. So a contested vector goes to the
class that is closer, and the class that loses it takes the next one on its list.

Source: the order is the stable matching (Gale and Shapley, 1962) of classes with k places and
vectors, where both prefer larger cosines.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

LISTED = 4
"""Length of the list of a class, as a multiple of what it may take."""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Pairs of a class and a vector, by class, nearest first."""

    label: Int64[np.ndarray, " e"]
    position: Int64[np.ndarray, " e"]
    cosine: Float32[np.ndarray, " e"]


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The vectors of each class, by class, nearest first."""

    label: Int64[np.ndarray, " n"]
    position: Int64[np.ndarray, " n"]
    cosine: Float32[np.ndarray, " n"]
    contested: int
    """Vectors that two classes had among their k nearest."""
    ambiguous: int
    """Vectors that went to no class because two are equally near."""


def lists_of(
    cosines: Float32[np.ndarray, "q l"],
    positions: Int64[np.ndarray, "q l"],
    owner: Int64[np.ndarray, " q"],
    length: int,
    min_cosine: float | None = None,
) -> Lists:
    """Join what was found for each query into one list per class.

    Args:
        cosines: Cosines of the `length` vectors nearest to each query.
        positions: Which vectors these are.
        owner: Class of each query.
        length: Length of the list of a class. A vector that several queries of a class found is on
            it once, with its largest cosine.
        min_cosine: Vectors below are left out; None for no bound.
    """
    label = np.repeat(owner, cosines.shape[1])
    position, cosine = positions.reshape(-1), cosines.reshape(-1)
    keep = np.isfinite(cosine)
    if min_cosine is not None:
        keep &= cosine >= min_cosine
    label, position, cosine = label[keep], position[keep], cosine[keep]
    order = np.lexsort((-cosine, position, label))
    label, position, cosine = label[order], position[order], cosine[order]
    is_first = np.ones(len(label), dtype=bool)
    is_first[1:] = (label[1:] != label[:-1]) | (position[1:] != position[:-1])
    label, position, cosine = label[is_first], position[is_first], cosine[is_first]
    order = np.lexsort((position, -cosine, label))
    label, position, cosine = label[order], position[order], cosine[order]
    keep = _rank(label) < length
    return Lists(label=label[keep], position=position[keep], cosine=cosine[keep])


def assign(lists: Lists, k: int, margin: float) -> Claims:
    """Give every vector to at most one class, and every class at most k vectors.

    Args:
        lists: Nearest vectors of each class.
        k: Most vectors of a class.
        margin: Smallest difference of the cosines with the two nearest classes.

    Example:
        >>> lists = Lists(
        ...     label=np.array([0, 0, 1, 1]),
        ...     position=np.array([7, 8, 7, 9]),
        ...     cosine=np.array([0.9, 0.5, 0.7, 0.6], dtype=np.float32),
        ... )
        >>> claims = assign(lists, k=1, margin=0.1)
        >>> claims.label.tolist(), claims.position.tolist(), claims.contested
        ([0, 1], [7, 9], 1)
    """
    ambiguous = _ambiguous(lists, margin)
    taken: set[int] = set(ambiguous.tolist())
    room: dict[int, int] = {}
    chosen = []
    for at in np.lexsort((lists.position, lists.label, -lists.cosine)).tolist():
        label, position = int(lists.label[at]), int(lists.position[at])
        if position not in taken and room.setdefault(label, k):
            taken.add(position)
            room[label] -= 1
            chosen.append(at)
    at = np.sort(np.array(chosen, dtype=np.int64))
    _, counts = np.unique(lists.position[_rank(lists.label) < k], return_counts=True)
    return Claims(
        label=lists.label[at],
        position=lists.position[at],
        cosine=lists.cosine[at],
        contested=int((counts > 1).sum()),
        ambiguous=len(ambiguous),
    )


def _ambiguous(lists: Lists, margin: float) -> Int64[np.ndarray, " a"]:
    """Return the vectors whose two nearest classes differ by less than the margin."""
    order = np.lexsort((-lists.cosine, lists.position))
    position, cosine = lists.position[order], lists.cosine[order]
    nearest = _rank(position) == 0
    second = np.flatnonzero(nearest[:-1] & (position[1:] == position[:-1])) + 1
    close: Int64[np.ndarray, " a"] = position[second[cosine[second - 1] - cosine[second] < margin]]
    return close


def _rank(groups: Int64[np.ndarray, " e"]) -> Int64[np.ndarray, " e"]:
    """Return the place of each entry within its run of equal values."""
    if not len(groups):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    lengths = np.diff(np.r_[starts, len(groups)])
    rank: Int64[np.ndarray, " e"] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return rank
