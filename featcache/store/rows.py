"""Gather rows of one component from its shards.

A table of disjoint ranges maps rows to shards, so that its size depends on the number of shards and
not of rows. A later shard takes precedence over an earlier one; this is how an image that became
readable gets its features.

All returned rows are verified: the images of a shard when it is first needed, the checksum of a row
when it is first read (checked.py).
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from featcache.errors import CorruptCacheError, MissingComponentError
from featcache.keys import Listing
from featcache.quantise import SCALE, unpack
from featcache.scarcity import share_of_files
from featcache.store.checked import CheckedShard, Mapped
from featcache.store.format.crc import crc32
from featcache.store.format.records import ShardLine
from featcache.store.format.shard import check_size, disk_reads
from featcache.store.listing.lazy_columns import Hashes
from featcache.wording import Part

if TYPE_CHECKING:
    import torch

MAPS = share_of_files(64)
"""Most shards of a component that stay mapped; each needs a file descriptor."""


class ShardRows:
    """A component open for reading; shards are mapped when first needed."""

    def __init__(
        self,
        folder: Path,
        lines: Sequence[ShardLine],
        n: int,
        cure: Part = "",
        listing: Listing | None = None,
    ) -> None:
        """Build the table of ranges.

        Args:
            folder: Folder of the component.
            lines: Records of its shards, oldest first; at least one.
            n: Number of rows of the listing.
            cure: Advice for lost rows; empty for the usual advice to encode them again.
            listing: Listing to check the images of the shards against; None for no check.

        Raises:
            CorruptCacheError: If shards differ in shape, or have rows that are not listed.
        """
        self._stored_shape: tuple[int, ...] = lines[0].facts.shape[1:]
        self.dtype = np.dtype(lines[0].facts.dtype)
        """Type on disk; int8 is returned as float16."""
        self._folder, self._lines, self._n, self._cure = folder, tuple(lines), n, cure
        self._listing = listing
        self._shards: dict[int, CheckedShard] = {}
        self._mapped: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._sized: set[int] = set()
        self._warm: set[int] = set()  # shards whose rows were in memory at the last read
        for line in lines:
            self._check(line)
        self._ranges = _Ranges(lines)
        self._bad = self._find_bad()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row as returned by `take`: (d,), (v, d), (p, d)."""
        if self.dtype != np.int8:
            return self._stored_shape
        return (*self._stored_shape[:-1], self._stored_shape[-1] - SCALE)

    def present(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row of the listing whether this component contains it."""
        present = np.zeros(self._n, dtype=bool)
        for first, last in zip(
            self._ranges.first.tolist(), self._ranges.last.tolist(), strict=True
        ):
            present[first:last] = True
        return present

    def bad(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row whether its image could not be read."""
        bad = np.zeros(self._n, dtype=bool)
        bad[self._bad] = True
        return bad

    def bad_rows(self) -> Int64[np.ndarray, " b"]:
        """Return the rows whose image could not be read, ascending."""
        return self._bad.copy()

    def take(self, rows: Int64[np.ndarray, " r"]) -> "torch.Tensor":
        """Gather raw rows [r ...] in the given order: int32 for boxes, else floats."""
        from torch import from_numpy

        return from_numpy(self.gather(rows))

    def gather(self, rows: Int64[np.ndarray, " r"]) -> Shaped[np.ndarray, "r ..."]:
        """Gather raw rows [r ...] into a new array.

        Raises:
            MissingComponentError: If this component lacks one of the rows.
            CorruptCacheError: If a shard is damaged.
        """
        stored = self._gather(rows)
        return unpack(stored) if self.dtype == np.int8 else stored

    def release(self) -> None:
        """Unmap all shards; the next reading maps them again.

        Pages of mapped files count as memory of the process as long as they are mapped.
        """
        while self._mapped:
            self._shards[self._mapped.popitem()[0]].close()

    def _gather(self, rows: Int64[np.ndarray, " r"]) -> Shaped[np.ndarray, "r ..."]:
        owner, position = self._ranges.find(rows)
        if len(rows) and owner.min() < 0:
            raise MissingComponentError(
                f"{self._folder} lacks row {int(rows[np.argmin(owner)])}. ",
                self._cure or "The same `featcache extract` command encodes what is missing.",
            )
        # Not `np.unique`: its first call imports numpy.ma, which takes longer than gathering.
        order = np.argsort(owner, kind="stable")
        cuts = np.flatnonzero(np.diff(owner[order])) + 1
        parts = [(int(owner[where[0]]), where) for where in np.split(order, cuts) if len(where)]
        for number, _ in parts:
            self._check_size(number)  # before allocating memory by what a record states
        out = np.empty((len(rows), *self._stored_shape), dtype=self.dtype)
        before = disk_reads()
        for first in range(0, len(parts), MAPS):
            group = parts[first : first + MAPS]
            opened = [self._open(number, position[where]) for number, where in group]
            for (shard, mapped), (_, where) in zip(opened, group, strict=True):
                shard.copy(mapped, position[where], where, out)
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

    def _open(self, number: int, position: Int64[np.ndarray, " k"]) -> tuple[CheckedShard, Mapped]:
        """Open a shard, and prefetch these rows if they are not in memory."""
        line = self._lines[number]
        shard = self._shards.get(number)
        if shard is None:
            if self._listing is not None:
                check_images(self._folder, [line], self._listing)
            path = self._folder / line.file
            shard = CheckedShard(path, line.facts, self._cure, lambda at: self._name_of(line, at))
            self._shards[number] = shard
        mapped = shard.open(position, is_warm=number in self._warm)
        self._mapped.pop(number, None)
        self._mapped[number] = None
        if len(self._mapped) > MAPS:
            self._shards[self._mapped.popitem(last=False)[0]].close()
        return shard, mapped

    def _name_of(self, line: ShardLine, position: int) -> str:
        row = line.row_at(position)
        return f"row {row}" if self._listing is None else f"row {row} ({self._listing.ids[row]})"

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
                f"{self._folder / line.file} has row {line.rows[-1][1] - 1}, but the listing "
                f"has {self._n} images. Restore the listing, or remove this cache and extract "
                f"again."
            )

    def _find_bad(self) -> Int64[np.ndarray, " b"]:
        """Return unreadable rows that no later shard replaces."""
        bad = [np.empty(0, dtype=np.int64)]
        for number, line in enumerate(self._lines):
            if line.bad:
                rows = _rows_at(line, np.array([p for p, _ in line.bad], dtype=np.int64))
                bad.append(rows[self._ranges.find(rows)[0] == number])
        return np.sort(np.concatenate(bad))


class _Ranges:
    """Disjoint ascending ranges of listing rows, each with its shard and its place in the shard."""

    def __init__(self, lines: Sequence[ShardLine]) -> None:
        """Merge the ranges of all records; where they overlap, later ones take precedence."""
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
        owned = np.flatnonzero(owner >= 0)
        self.first, self.last = edges[owned], edges[owned + 1]
        self.number, self.shift = number[owner[owned]], shift[owner[owned]]

    def find(
        self, rows: Int64[np.ndarray, " r"]
    ) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
        """Return the shard of each row, -1 if there is none, and its position in the shard."""
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
    """Count the distinct rows of some shards."""
    ranges = sorted(pair for line in lines for pair in line.rows)
    count = end = 0
    for first, last in ranges:
        count += max(0, last - max(first, end))
        end = max(end, last)
    return count


def covers(ranges: Iterable[tuple[int, int]], wanted: Iterable[tuple[int, int]]) -> bool:
    """Tell whether ranges of rows, in any order, cover all rows of ascending other ranges."""
    ascending = iter(sorted(ranges))
    first, last = 0, 0  # rows covered so far without a gap
    for start, stop in wanted:
        row = start
        while row < stop:
            if first <= row < last:
                row = last
                continue
            following = next(ascending, None)
            if following is None or following[0] > row:
                return False
            first, last = following[0], max(last, following[1])
    return True


def images_crc32(listing: Listing, ranges: Iterable[tuple[int, int]]) -> int:
    """Return the crc32 of the concatenated content hashes of some rows.

    It ties a shard to its images and detects a listing that assigns its rows to other images.

    Raises:
        CorruptCacheError: If the hashes are damaged.
    """
    crc, hashes = 0, listing.hashes
    for first, last in ranges:
        if isinstance(hashes, Hashes):
            text = hashes.hex(first, last)
        else:
            text = "".join(hashes[first:last])
        crc = crc32(text.encode(), crc)
    return crc


def check_images(folder: Path, lines: Sequence[ShardLine], listing: Listing) -> None:
    """Check that shards of a component were made from the listed images.

    Raises:
        CorruptCacheError: If a shard was made from others, or the hashes are damaged.
    """
    other = [x for x in lines if images_crc32(listing, x.rows) != x.images_crc32]
    if other:
        raise CorruptCacheError(
            f"{len(other)} of {len(lines)} shards in {folder} (first: {other[0].file}) were "
            f"made of other images than the listing names. Restore the listing that is theirs, or "
            f"remove this cache with `featcache rm` and extract again."
        )


def ranges_of(rows: Int64[np.ndarray, " r"]) -> tuple[tuple[int, int], ...]:
    """Return ascending rows as ranges [start, stop)."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    return tuple((int(part[0]), int(part[-1]) + 1) for part in np.split(rows, cuts))
