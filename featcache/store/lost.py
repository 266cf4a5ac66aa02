"""What damage has cost a cache: rows that a `drop` line took out and that nobody encoded again."""

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
    """Return the rows of every loss that are in a split and that no shard holds now.

    Args:
        contents: What the manifest says.
        listing: The current one; rows beyond it are never expanded.
        present: Rows that a component holds.

    Returns:
        Component -> for each of its losses, oldest first, ascending rows that no earlier one named.
    """
    found: dict[str, list[Int64[np.ndarray, " _"]]] = {}
    wanted = in_splits(listing)
    missing: dict[str, Bool[np.ndarray, " n"]] = {}
    for line in contents.drops:
        if not line.rows:
            continue
        if line.component not in missing:
            missing[line.component] = wanted & ~present(line.component)
        if len(rows := _take(missing[line.component], line.rows)):
            found.setdefault(line.component, []).append(rows)
    return found


def in_splits(listing: Listing) -> Bool[np.ndarray, " n"]:
    """Tell for every row whether any split has it."""
    wanted = np.zeros(len(listing), dtype=bool)
    for rows in listing.splits.values():
        wanted[rows] = True
    return wanted


def still_lost(
    drops: Iterable[DropLine],
    shards: Mapping[str, Sequence[ShardLine]],
) -> list[DropLine]:
    """Leave out losses whose rows are all held again; the listing does not matter here."""
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
    """Return the missing rows of some ranges, and cross them out."""
    parts = [np.empty(0, dtype=np.int64)]
    for first, last in ranges:
        part = missing[first:last]  # numpy clips it to the listing
        parts.append(np.flatnonzero(part) + first)
        part[:] = False
    return np.concatenate(parts)
