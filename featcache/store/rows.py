"""Rows of one component, gathered from wherever its shards hold them.

A table of disjoint ranges says which shard has which rows, so that ten million of them cost no more
than their shards do. A later shard wins over an earlier one, which is how an image that could be
read at the second try gets its row.
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from featcache.errors import CorruptCacheError, MissingComponentError
from featcache.keys import Listing
from featcache.store.lines import ShardLine, kind_of
from featcache.store.quantise import SCALE, unpack
from featcache.store.shard import check_bytes, check_size, disk_reads, fetch, is_whole, map_shard

if TYPE_CHECKING:
    import torch

MAPS = 64
"""Shards of a component that stay mapped: each holds a file descriptor, of which there are few."""
UNCHECKED = frozenset({"patches", "view_patches", "crops"})
"""Kinds too large to read a whole shard for a few rows; `verify` checks those."""
BUFFER = 1 << 19
"""Bytes on the way from a shard to rows that are not next to each other."""
WIDE = 1 << 13
"""Bytes of a row from which copying it alone is cheaper than going through the buffer."""


class ShardRows:
    """A component opened for reading; files are mapped when first needed."""

    def __init__(self, folder: Path, lines: Sequence[ShardLine], n: int, cure: str = "") -> None:
        """Build the table of ranges.

        Args:
            folder: The component's folder.
            lines: Its shards, oldest first; at least one.
            n: Rows of the listing.
            cure: What brings rows back; empty where encoding them again does.

        Raises:
            CorruptCacheError: If shards disagree in shape, or speak of rows nobody listed.
        """
        self._stored_shape: tuple[int, ...] = lines[0].facts.shape[1:]
        self.dtype = np.dtype(lines[0].facts.dtype)
        """As stored; int8 comes out as float16."""
        self._folder, self._lines, self._n, self._cure = folder, tuple(lines), n, cure
        self._maps: OrderedDict[int, Shaped[np.ndarray, ...]] = OrderedDict()
        self._is_read_whole = kind_of(lines[0].component) not in UNCHECKED
        self._sized: set[int] = set()
        self._checked: set[int] = set()
        self._warm: set[int] = set()  # shards that were gathered from without a disk
        for line in lines:
            self._check(line)
        self._ranges = _Ranges(lines)
        self._bad = self._find_bad()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row, as `take` gives it: (d,), (v, d), (p, d)."""
        if self.dtype != np.int8:
            return self._stored_shape
        return (*self._stored_shape[:-1], self._stored_shape[-1] - SCALE)

    def present(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row of the listing whether this component holds it."""
        held = np.zeros(self._n, dtype=bool)
        for first, last in zip(
            self._ranges.first.tolist(), self._ranges.last.tolist(), strict=True
        ):
            held[first:last] = True
        return held

    def bad(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row whether its image could not be read."""
        bad = np.zeros(self._n, dtype=bool)
        bad[self._bad] = True
        return bad

    def bad_rows(self) -> Int64[np.ndarray, " b"]:
        """Return the rows whose image could not be read, ascending."""
        return self._bad.copy()

    def take(self, rows: Int64[np.ndarray, " r"]) -> "torch.Tensor":
        """Gather rows [r ...], raw, in the order asked for; int32 for boxes, else floats."""
        from torch import from_numpy

        return from_numpy(self.gather(rows))

    def gather(self, rows: Int64[np.ndarray, " r"]) -> Shaped[np.ndarray, "r ..."]:
        """Gather rows [r ...] into memory of their own.

        Raises:
            MissingComponentError: If this component lacks one of the rows.
            CorruptCacheError: If a shard is not what was recorded.
        """
        stored = self._gather(rows)
        return unpack(stored) if self.dtype == np.int8 else stored

    def _gather(self, rows: Int64[np.ndarray, " r"]) -> Shaped[np.ndarray, "r ..."]:
        shard, position = self._ranges.find(rows)
        if len(rows) and shard.min() < 0:
            raise MissingComponentError(
                f"{self._folder} lacks row {int(rows[np.argmin(shard)])}. "
                f"{self._cure or 'The same `featcache extract` command encodes what is missing.'}"
            )
        # Not `np.unique`: its first call in a process imports numpy.ma, longer than a gather takes.
        order = np.argsort(shard, kind="stable")
        cuts = np.flatnonzero(np.diff(shard[order])) + 1
        parts = [(int(shard[where[0]]), where) for where in np.split(order, cuts) if len(where)]
        for number, _ in parts:
            self._check_size(number)  # before anything is allocated by what a stranger's line says
        out = np.empty((len(rows), *self._stored_shape), dtype=self.dtype)
        before = disk_reads()
        for first in range(0, len(parts), MAPS):
            group = parts[first : first + MAPS]
            maps = [self._map(number, position[where]) for number, where in group]
            for values, (_, where) in zip(maps, group, strict=True):
                if where[-1] - where[0] == len(where) - 1 and bool((np.diff(where) == 1).all()):
                    _copy(values, position[where], out[where[0] : where[-1] + 1])
                else:
                    _scatter(values, position[where], where, out)
        if disk_reads() > before:
            self._warm.clear()
        else:
            self._warm.update(number for number, _ in parts)
        return out

    def _check_size(self, number: int) -> None:
        if number not in self._sized:
            line = self._lines[number]
            check_size(self._folder / line.file, line.facts, self._cure)
            self._sized.add(number)

    def _map(self, number: int, position: Int64[np.ndarray, " k"]) -> Shaped[np.ndarray, "..."]:
        """Return a shard as mapped; on a cold disk these rows of it are on their way."""
        line = self._lines[number]
        path = self._folder / line.file
        values = self._maps.pop(number, None)
        if values is None or not is_whole(values, line.facts):
            if number not in self._checked and self._is_read_whole:
                check_bytes(path, line.facts, self._cure)
                self._checked.add(number)
            values = map_shard(path, line.facts, self._cure)
        self._maps[number] = values
        if len(self._maps) > MAPS:
            self._maps.popitem(last=False)
        if number not in self._warm and not self._is_read_whole:
            fetch(path, line.facts, position)
        return values

    def _check(self, line: ShardLine) -> None:
        if line.facts.shape[1:] != self._stored_shape or line.facts.dtype != self.dtype.name:
            raise CorruptCacheError(
                f"{self._folder / line.file} has rows {list(line.facts.shape[1:])} of "
                f"{line.facts.dtype}, earlier shards {list(self._stored_shape)} of "
                f"{self.dtype.name}. "
                f"They come from different models: remove this cache and extract again."
            )
        if self.dtype == np.int8 and self._stored_shape[-1] <= SCALE:
            raise CorruptCacheError(
                f"{self._folder / line.file} has rows {list(self._stored_shape)} of int8, too "
                f"narrow for a scale behind each token. Remove this cache and extract again."
            )
        if line.rows[-1][1] > self._n:
            raise CorruptCacheError(
                f"{self._folder / line.file} speaks of row {line.rows[-1][1] - 1}, but the listing "
                f"has {self._n} images. Restore the listing, or remove this cache and extract "
                f"again."
            )

    def _find_bad(self) -> Int64[np.ndarray, " b"]:
        """Return bad rows that no later shard gave another try."""
        found = [np.empty(0, dtype=np.int64)]
        for number, line in enumerate(self._lines):
            if line.bad:
                rows = _rows_at(line, np.array([p for p, _ in line.bad], dtype=np.int64))
                found.append(rows[self._ranges.find(rows)[0] == number])
        return np.sort(np.concatenate(found))


class _Ranges:
    """Disjoint ascending ranges of listing rows, each with its shard and its place in there."""

    def __init__(self, lines: Sequence[ShardLine]) -> None:
        """Join the ranges of all lines; where they overlap, the later line has the rows."""
        pairs = [np.array(line.rows, dtype=np.int64) for line in lines]
        counts = [len(p) for p in pairs]
        first, last = np.concatenate(pairs).T
        begin = np.cumsum(last - first) - (last - first)
        place = begin - np.repeat(begin[np.cumsum(counts) - counts], counts)
        number = np.repeat(np.arange(len(lines)), counts)
        shift = place - first  # position in the shard = row + shift
        order = np.argsort(first, kind="stable")
        if bool((first[order][1:] >= last[order][:-1]).all()):
            self.first, self.last = first[order], last[order]
            self.number, self.shift = number[order], shift[order]
            return
        edges = np.unique(np.concatenate([first, last]))
        owner = np.full(len(edges), -1, dtype=np.int64)  # range that has [edge, next edge)
        bounds = zip(
            np.searchsorted(edges, first).tolist(),
            np.searchsorted(edges, last).tolist(),
            strict=True,
        )
        for i, (start, stop) in enumerate(bounds):
            owner[start:stop] = i
        kept = np.flatnonzero(owner >= 0)
        self.first, self.last = edges[kept], edges[kept + 1]
        self.number, self.shift = number[owner[kept]], shift[owner[kept]]

    def find(
        self, rows: Int64[np.ndarray, " r"]
    ) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
        """Return for each row its shard, -1 where no shard has it, and its position in there."""
        at = np.searchsorted(self.first, rows, side="right") - 1
        inside = (at >= 0) & (rows < self.last[at])
        return np.where(inside, self.number[at], -1), rows + self.shift[at]


def _rows_at(line: ShardLine, positions: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    """Return the listing rows at some positions of a shard."""
    first, last = np.array(line.rows, dtype=np.int64).T
    end = np.cumsum(last - first)
    at = np.searchsorted(end, positions, side="right")
    rows: Int64[np.ndarray, " k"] = last[at] - end[at] + positions
    return rows


def count_rows(lines: Sequence[ShardLine]) -> int:
    """Count the rows that some shards hold, each once."""
    ranges = sorted(pair for line in lines for pair in line.rows)
    count = end = 0
    for first, last in ranges:
        count += max(0, last - max(first, end))
        end = max(end, last)
    return count


def covers(ranges: Iterable[tuple[int, int]], wanted: Iterable[tuple[int, int]]) -> bool:
    """Tell whether some ranges of rows, in any order, hold every row of others that ascend."""
    held = iter(sorted(ranges))
    first, last = 0, 0  # what the ranges so far hold without a gap before the wanted row
    for start, stop in wanted:
        row = start
        while row < stop:
            if first <= row < last:
                row = last
                continue
            following = next(held, None)
            if following is None or following[0] > row:
                return False
            first, last = following[0], max(last, following[1])
    return True


def images_crc32(listing: Listing, ranges: Iterable[tuple[int, int]]) -> int:
    """Return the crc32 of the content hashes of some rows, as text one behind the other.

    It ties a shard to its images: a listing that gives its rows to others shows.

    Raises:
        CorruptCacheError: If the hashes are not what was written.
    """
    crc = 0
    for first, last in ranges:
        crc = zlib.crc32("".join(listing.hashes[first:last]).encode(), crc)
    return crc


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
    """Copy rows from one shard to rows all over the result, narrow ones through a cached buffer."""
    width = values.nbytes // len(values)
    if width >= WIDE:
        plain = values.view(np.ndarray)  # a memmap makes each of its rows a memmap again
        for source, target in zip(position.tolist(), where.tolist(), strict=True):
            out[target] = plain[source]
        return
    step = max(1, BUFFER // width)
    buffer = np.empty((min(step, len(position)), *values.shape[1:]), dtype=values.dtype)
    for first in range(0, len(position), step):
        part = position[first : first + step]
        rows = np.take(values, part, axis=0, out=buffer[: len(part)], mode="clip")
        out[where[first : first + step]] = rows
