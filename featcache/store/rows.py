"""Rows of one component, gathered from wherever its shards hold them.

A table of disjoint ranges says which shard has which rows, so that ten million of them cost no more
than their shards do. A later shard wins over an earlier one, which is how an image that could be
read at the second try gets its row.

Whatever comes out was compared with what was written: the images of a shard when it is first
needed, the bytes of a row when it is first taken (checked.py).
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
"""Shards of a component that stay mapped: each holds a file descriptor, of which there are few."""


class ShardRows:
    """A component opened for reading; files are mapped when first needed."""

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
            folder: The component's folder.
            lines: Its shards, oldest first; at least one.
            n: Rows of the listing.
            cure: What brings rows back; empty where encoding them again does.
            listing: Whose images the rows must have been made of; None compares nothing.

        Raises:
            CorruptCacheError: If shards disagree in shape, or speak of rows nobody listed.
        """
        self._stored_shape: tuple[int, ...] = lines[0].facts.shape[1:]
        self.dtype = np.dtype(lines[0].facts.dtype)
        """As stored; int8 comes out as float16."""
        self._folder, self._lines, self._n, self._cure = folder, tuple(lines), n, cure
        self._listing = listing
        self._shards: dict[int, CheckedShard] = {}
        self._mapped: OrderedDict[int, None] = OrderedDict()  # the last one used stands last
        self._sized: set[int] = set()
        self._warm: set[int] = set()  # shards that were gathered from without a disk
        for line in lines:
            self._check(line)
        self._ranges = _Ranges(lines)
        self._bad = self._find_bad()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, as `take` gives it: (d,), (v, d), (p, d)."""
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
        owner, position = self._ranges.find(rows)
        if len(rows) and owner.min() < 0:
            raise MissingComponentError(
                f"{self._folder} lacks row {int(rows[np.argmin(owner)])}. ",
                self._cure or "The same `featcache extract` command encodes what is missing.",
            )
        # Not `np.unique`: its first call in a process imports numpy.ma, longer than a gather takes.
        order = np.argsort(owner, kind="stable")
        cuts = np.flatnonzero(np.diff(owner[order])) + 1
        parts = [(int(owner[where[0]]), where) for where in np.split(order, cuts) if len(where)]
        for number, _ in parts:
            self._check_size(number)  # before anything is allocated by what a stranger's line says
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
        """Return a shard and its map; on a cold disk these rows of it are on their way."""
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
    crc, hashes = 0, listing.hashes
    for first, last in ranges:
        if isinstance(hashes, Hashes):
            text = hashes.hex(first, last)
        else:
            text = "".join(hashes[first:last])
        crc = crc32(text.encode(), crc)
    return crc


def check_images(folder: Path, lines: Sequence[ShardLine], listing: Listing) -> None:
    """Compare the images of which some shards of a component were made with those listed.

    Raises:
        CorruptCacheError: If a shard was made of others, or the hashes are not what was written.
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
