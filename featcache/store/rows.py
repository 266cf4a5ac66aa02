"""Rows of one component, gathered from wherever its shards hold them.

Two tables say for every row of the listing which shard has it and at which position; a later shard
wins over an earlier one, which is how an image that could be read at the second try gets its row.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from featcache.errors import CorruptCacheError, MissingComponentError
from featcache.store.lines import ShardLine
from featcache.store.shard import check_bytes, map_shard

if TYPE_CHECKING:
    import torch

MAPS = 64
"""Shards of a component that stay mapped: each holds a file descriptor, of which there are few."""
UNCHECKED = ("patches", "view_patches", "crops")
"""Kinds too large to read a whole shard for a few rows; `verify` checks those."""
BUFFER = 1 << 19
"""Bytes on the way from a shard to rows that are not next to each other."""


class ShardRows:
    """A component opened for reading; files are mapped when first needed."""

    def __init__(self, folder: Path, lines: Sequence[ShardLine], n: int) -> None:
        """Build the tables.

        Args:
            folder: The component's folder.
            lines: Its shards, oldest first; at least one.
            n: Rows of the listing.

        Raises:
            CorruptCacheError: If shards disagree in shape, or speak of rows nobody listed.
        """
        self.shape: tuple[int, ...] = lines[0].facts.shape[1:]
        """Of one row: (d,), (v, d), (p, d)."""
        self.dtype = np.dtype(lines[0].facts.dtype)
        self._folder, self._lines = folder, tuple(lines)
        self._maps: OrderedDict[int, Shaped[np.ndarray, ...]] = OrderedDict()
        self._checked: set[int] = set()
        self._shard = np.full(n, -1, dtype=np.int32)
        self._position = np.zeros(n, dtype=np.int64)
        self._bad = np.zeros(n, dtype=bool)
        for number, line in enumerate(lines):
            self._check(line, n)
            start = 0
            for first, last in line.rows:
                self._shard[first:last] = number
                self._position[first:last] = np.arange(start, start + last - first)
                self._bad[first:last] = False
                start += last - first
            self._bad[rows_of(line)[list(line.bad)]] = True

    def present(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row of the listing whether this component holds it."""
        held: Bool[np.ndarray, " n"] = self._shard >= 0
        return held

    def bad(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row whether its image could not be read."""
        return self._bad.copy()

    def take(self, rows: Int64[np.ndarray, " r"]) -> "torch.Tensor":
        """Gather rows [r ...], raw, in the order asked for."""
        from torch import from_numpy

        return from_numpy(self.gather(rows))

    def gather(self, rows: Int64[np.ndarray, " r"]) -> Shaped[np.ndarray, "r ..."]:
        """Gather rows [r ...] into memory of their own.

        Raises:
            MissingComponentError: If this component lacks one of the rows.
            CorruptCacheError: If a shard is not what was recorded.
        """
        shard, position = self._shard[rows], self._position[rows]
        out = np.empty((len(rows), *self.shape), dtype=self.dtype)
        if not len(rows):
            return out
        if shard.min() < 0:
            raise MissingComponentError(
                f"{self._folder} lacks row {int(rows[np.argmin(shard)])}. "
                f"The same `featcache extract` command encodes what is missing."
            )
        if (shard == shard[0]).all():
            _copy(self._map(int(shard[0])), position, out)
            return out
        order = np.argsort(shard, kind="stable")
        cuts = np.flatnonzero(np.diff(shard[order])) + 1
        for where in np.split(order, cuts):
            values, target = self._map(int(shard[where[0]])), position[where]
            if where[-1] - where[0] == len(where) - 1 and bool((np.diff(where) == 1).all()):
                _copy(values, target, out[where[0] : where[-1] + 1])
            else:
                _scatter(values, target, where, out)
        return out

    def _map(self, number: int) -> Shaped[np.ndarray, "..."]:
        if number in self._maps:
            self._maps.move_to_end(number)
            return self._maps[number]
        line = self._lines[number]
        path = self._folder / line.file
        if number not in self._checked and not self._folder.name.startswith(UNCHECKED):
            check_bytes(path, line.facts)
            self._checked.add(number)
        self._maps[number] = map_shard(path, line.facts)
        if len(self._maps) > MAPS:
            self._maps.popitem(last=False)
        return self._maps[number]

    def _check(self, line: ShardLine, n: int) -> None:
        if line.facts.shape[1:] != self.shape or line.facts.dtype != self.dtype.name:
            raise CorruptCacheError(
                f"{self._folder / line.file} has rows {list(line.facts.shape[1:])} of "
                f"{line.facts.dtype}, earlier shards {list(self.shape)} of {self.dtype.name}. "
                f"They come from different models: remove this cache and extract again."
            )
        if line.rows[-1][1] > n:
            raise CorruptCacheError(
                f"{self._folder / line.file} speaks of row {line.rows[-1][1] - 1}, but the listing "
                f"has {n} images. Restore the listing, or remove this cache and extract again."
            )


def rows_of(line: ShardLine) -> Int64[np.ndarray, " r"]:
    """Return the listing rows of a shard, in its order."""
    return np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in line.rows])


def count_rows(lines: Sequence[ShardLine]) -> int:
    """Count the rows that some shards hold, each once."""
    ranges = sorted(pair for line in lines for pair in line.rows)
    count = end = 0
    for first, last in ranges:
        count += max(0, last - max(first, end))
        end = max(end, last)
    return count


def ranges_of(rows: Int64[np.ndarray, " r"]) -> tuple[tuple[int, int], ...]:
    """Return ascending rows as ranges [start, stop)."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    return tuple((int(part[0]), int(part[-1]) + 1) for part in np.split(rows, cuts))


def _copy(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " r"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Gather from one shard, as one block where the positions are one."""
    first, last = int(position[0]), int(position[-1])
    if last - first == len(position) - 1 and bool((np.diff(position) == 1).all()):
        out[...] = values[first : last + 1]
    else:
        # Positions are known to be inside; without `clip` numpy would gather into a second buffer.
        np.take(values, position, axis=0, out=out, mode="clip")


def _scatter(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " k"],
    where: Int64[np.ndarray, " k"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Copy rows from one shard to rows all over the result, through a buffer that stays cached."""
    step = max(1, BUFFER // (values.nbytes // len(values)))
    buffer = np.empty((min(step, len(position)), *values.shape[1:]), dtype=values.dtype)
    for first in range(0, len(position), step):
        part = position[first : first + step]
        rows = np.take(values, part, axis=0, out=buffer[: len(part)], mode="clip")
        out[where[first : first + step]] = rows
