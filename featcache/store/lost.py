"""Lost rows: dropped as damaged and not encoded again."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from featcache.keys import Listing
from featcache.store.format.manifest import Contents
from featcache.store.format.records import DropLine, ShardLine
from featcache.store.rows import covers


def lost_rows(
    contents: Contents, listing: Listing, present: Callable[[str], Bool[np.ndarray, " n"]]
) -> dict[str, list[Int64[np.ndarray, " _"]]]:
    """Return the rows of every drop that are in a split and that no shard contains now.

    Args:
        contents: Contents according to the manifest.
        listing: Current listing; rows beyond it are ignored.
        present: Returns the rows that a component contains.

    Returns:
        Component -> for each of its drops, oldest first, ascending rows not in earlier drops.
    """
    lost: dict[str, list[Int64[np.ndarray, " _"]]] = {}
    wanted = in_splits(listing)
    missing: dict[str, Bool[np.ndarray, " n"]] = {}
    for line in contents.drops:
        if not line.rows:
            continue
        if line.component not in missing:
            missing[line.component] = wanted & ~present(line.component)
        if len(rows := _take(missing[line.component], line.rows)):
            lost.setdefault(line.component, []).append(rows)
    return lost


def in_splits(listing: Listing) -> Bool[np.ndarray, " n"]:
    """Tell for every row whether it is in any split."""
    wanted = np.zeros(len(listing), dtype=bool)
    for rows in listing.splits.values():
        wanted[rows] = True
    return wanted


def still_lost(
    drops: Iterable[DropLine],
    shards: Mapping[str, Sequence[ShardLine]],
) -> list[DropLine]:
    """Return the drops whose rows are not all stored again, whatever the listing says."""
    return [
        drop
        for drop in drops
        if drop.rows
        and not covers(
            (pair for line in shards.get(drop.component, ()) for pair in line.rows), drop.rows
        )
    ]


def _take(
    missing: Bool[np.ndarray, " n"], ranges: Sequence[tuple[int, int]]
) -> Int64[np.ndarray, " _"]:
    """Return the missing rows of some ranges, and clear them in `missing`."""
    parts = [np.empty(0, dtype=np.int64)]
    for first, last in ranges:
        part = missing[first:last]  # slicing clips the range to the listing
        parts.append(np.flatnonzero(part) + first)
        part[:] = False
    return np.concatenate(parts)
