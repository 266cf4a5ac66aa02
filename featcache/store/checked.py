"""Read rows of one shard and verify their checksums first.

A row is verified once per process, in the copy that is returned, because a mapped page may be read
from the disk again at any time. If the checksums of the rows are missing, the whole shard is read
and verified first, and they are computed from it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from featcache.errors import CorruptCacheError
from featcache.store.copying import BUFFER, copy_rows, is_one_block
from featcache.store.format.checksums import read_sums
from featcache.store.format.crc import crc32
from featcache.store.format.scan import Rows, check_bytes, not_finite_message
from featcache.store.format.shard import CURE, ShardFacts, fetch, is_whole, map_shard
from featcache.wording import Part


class Mapped(NamedTuple):
    """The mapped rows of a shard, and which of them are verified."""

    values: Shaped[np.ndarray, "n ..."]
    verified: Bool[np.ndarray, " b"]
    """Blocks of rows whose checksum was compared."""


class CheckedShard:
    """One shard, open for reading; safe to share between threads."""

    def __init__(
        self, path: Path, facts: ShardFacts, cure: Part = "", name_of: Callable[[int], str] = str
    ) -> None:
        """Read the checksums of its rows; if there are none, read the whole shard.

        Args:
            path: File of the shard.
            facts: Layout and checksums from the manifest.
            cure: Advice for a damaged shard; empty for the usual advice to repair.
            name_of: Maps a position to the name of its row and image, for error messages.

        Raises:
            CorruptCacheError: If it is not what was written.
            UnreadableCacheError: If it could not be read.
        """
        self._path, self._facts, self._cure, self._name_of = path, facts, cure, name_of
        sums, self._found = read_sums(path, facts), None
        if sums is None:
            self._found = check_bytes(path, facts, cure)
            sums = self._found.sums
        self._sums = sums
        self._last: Mapped | None = None
        self._seen: tuple[tuple[int, ...], Bool[np.ndarray, " b"]] = ((), np.empty(0, bool))

    def open(self, position: Int64[np.ndarray, " k"], *, is_warm: bool) -> Mapped:
        """Map the shard if it is not mapped, and prefetch rows that are not in memory.

        Args:
            position: Positions [k] of the rows to be copied.
            is_warm: Whether they are known to be in memory.

        Raises:
            CorruptCacheError: If the file is missing or is not of the recorded size.
        """
        last = self._last
        if last is None or not is_whole(last.values, self._facts):
            values, stamp = map_shard(self._path, self._facts, self._cure)
            before, verified = self._seen
            if stamp != before:  # the file has changed since it was verified
                verified = np.zeros(len(self._sums.values), dtype=bool)
                self._seen = (stamp, verified)
            self._last = last = Mapped(values, verified)
        if not is_warm and self._found is None:
            fetch(self._path, self._facts, position, each=self._sums.each)
        return last

    def close(self) -> None:
        """Unmap the shard; rows stay verified as long as the file does not change."""
        self._last = None

    def copy(
        self,
        mapped: Mapped,
        position: Int64[np.ndarray, " k"],
        where: Int64[np.ndarray, " k"],
        out: Shaped[np.ndarray, "r ..."],
    ) -> None:
        """Copy rows into a result: out[where] = shard[position].

        Args:
            mapped: Result of `open`.
            position: Rows [k] of the shard.
            where: Rows [k] of `out`.
            out: Array to copy into.

        Raises:
            CorruptCacheError: If a row has a wrong checksum or is not finite.
        """
        self._refuse_not_finite(position)
        values = mapped.values.view(np.ndarray)  # rows of a memmap are memmaps, which is slow
        each, verified = self._sums.each, mapped.verified
        is_known = verified[position // each]
        if bool(is_known.all()):
            copy_rows(values, position, where, out)
        elif each == 1:
            self._copy_blocks(values, verified, position, where, out)
        elif len(inner := self._inner_blocks(position, where)):
            self._copy_blocks(values, verified, inner, inner * each - position[0] + where[0], out)
            for edge in (position < inner[0] * each, position >= (inner[-1] + 1) * each):
                self._copy_scattered(values, verified, position[edge], where[edge], out)
        else:
            copy_rows(values, position[is_known], where[is_known], out)
            rest = np.flatnonzero(~is_known)
            self._copy_scattered(values, verified, position[rest], where[rest], out)

    def _inner_blocks(
        self, position: Int64[np.ndarray, " k"], where: Int64[np.ndarray, " k"]
    ) -> Int64[np.ndarray, " b"]:
        """Return the blocks that are fully covered if all rows are contiguous; else none."""
        if not (is_one_block(position) and is_one_block(where)):
            return np.empty(0, dtype=np.int64)
        each, stop = self._sums.each, int(position[-1]) + 1
        is_end = stop == self._facts.shape[0]  # the last block may be short
        return np.arange(-(-int(position[0]) // each), -(-stop // each) if is_end else stop // each)

    def _copy_blocks(
        self,
        values: Shaped[np.ndarray, "n ..."],
        verified: Bool[np.ndarray, " b"],
        blocks: Int64[np.ndarray, " k"],
        where: Int64[np.ndarray, " k"],
        out: Shaped[np.ndarray, "r ..."],
    ) -> None:
        """Copy blocks to the places of their first rows; verify each copy while it is in cache."""
        width, size = self._facts.row_bytes, self._facts.row_bytes * self._sums.each
        source, target = _bytes_of(values), _bytes_of(out)
        sums = self._sums.values[blocks].tolist()
        for block, place, crc in zip(blocks.tolist(), (where * width).tolist(), sums, strict=True):
            data = source[block * size : (block + 1) * size]
            copy = target[place : place + len(data)]
            copy[:] = data
            if crc32(copy) != crc:
                raise self._damaged(block)
        verified[blocks] = True

    def _copy_scattered(
        self,
        values: Shaped[np.ndarray, "n ..."],
        verified: Bool[np.ndarray, " b"],
        position: Int64[np.ndarray, " k"],
        where: Int64[np.ndarray, " k"],
        out: Shaped[np.ndarray, "r ..."],
    ) -> None:
        """Copy single rows by way of a buffer in which their whole blocks are verified."""
        order = np.argsort(position, kind="stable")
        position, where = position[order], where[order]
        each = self._sums.each
        owner = position // each
        # Not `np.unique`: its first call in a process imports numpy.ma.
        blocks = owner[np.flatnonzero(np.diff(owner, prepend=-1))]
        step = max(1, BUFFER // (each * self._facts.row_bytes))
        buffer = np.empty((min(step, len(blocks)) * each, *values.shape[1:]), dtype=values.dtype)
        for first in range(0, len(blocks), step):
            some = blocks[first : first + step]
            self._copy_blocks(values, verified, some, np.arange(len(some)) * each, buffer)
            a, b = np.searchsorted(owner, [some[0], some[-1] + 1])
            place = np.searchsorted(some, owner[a:b]) * each + position[a:b] % each
            copy_rows(buffer, place, where[a:b], out)

    def _damaged(self, block: int) -> CorruptCacheError:
        first = block * self._sums.each
        last = min(first + self._sums.each, self._facts.shape[0]) - 1
        what = self._name_of(first)
        if last > first:
            what = f"one of the rows from {what} to {self._name_of(last)}"
        return CorruptCacheError(
            f"{self._path} is not what was written: {what} differs. ", self._cure or CURE
        )

    def _refuse_not_finite(self, position: Int64[np.ndarray, " k"]) -> None:
        found: Rows | None = self._found
        if found is None or not len(found.not_finite):
            return
        wanted = set(found.not_finite.tolist()) & set(position.tolist())
        if wanted:
            first = self._name_of(min(wanted))
            raise CorruptCacheError(not_finite_message(self._path, found, first, self._cure))


def _bytes_of(values: Shaped[np.ndarray, "r ..."]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data
