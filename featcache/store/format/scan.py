"""Read a whole file once by system calls: compute its checksums and find rows that are not finite.

A failing disk raises an error here; with a memory map it would kill the process.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.errors import CorruptCacheError
from featcache.store.format.checksums import RowSums, Summing
from featcache.store.format.crc import crc32
from featcache.store.format.files import open_plain, unreadable
from featcache.store.format.finite import not_finite
from featcache.store.format.shard import CURE, ShardFacts, check_facts, check_size
from featcache.wording import Part

CHUNK = 1 << 20
"""Bytes processed at once; few enough to stay in the processor cache."""


@dataclass(frozen=True, slots=True)
class Checksums:
    """Size and checksums of a whole file."""

    bytes: int
    crc32: int
    sha256: str
    """Empty if not requested."""
    rest_crc32: int
    """crc32 of the bytes after the skipped ones."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Result of reading a sound shard."""

    sums: RowSums
    not_finite: Int64[np.ndarray, " k"]
    """Positions of rows with a value that is not finite, ascending."""


def checksums(path: Path, *, sha256: bool, skip: int = 0) -> Checksums:
    """Read a whole file once.

    Args:
        path: A plain file.
        sha256: Whether to compute sha256 too.
        skip: Leading bytes that `rest_crc32` excludes.

    Raises:
        CorruptCacheError: If it is a symbolic link, or not a plain file.
        OSError: If it cannot be read.
    """
    crc = rest = size = 0
    sha = hashlib.sha256()
    for part in pieces(path, skip):
        crc = crc32(part, crc)
        rest = crc32(part, rest) if skip and size >= skip else rest
        size += len(part)
        if sha256:
            sha.update(part)
    return Checksums(size, crc, sha.hexdigest() if sha256 else "", rest if skip else crc)


def check_bytes(
    path: Path,
    facts: ShardFacts,
    cure: Part = "",
    *,
    full: bool = False,
    into: Shaped[np.ndarray, "r ..."] | None = None,
) -> Rows:
    """Read a whole shard and verify its crc32, and its sha256 if `full`.

    Args:
        path: File of the shard.
        facts: Layout and checksums from the manifest.
        cure: Advice for a damaged shard; empty for the usual advice to repair.
        full: Whether to compare sha256.
        into: Array to copy the rows into, of their shape and type.

    Raises:
        CorruptCacheError: If it is damaged.
        UnreadableCacheError: If it could not be read.
    """
    check_size(path, facts, cure)
    check_facts(path, facts)
    summing, numbers = Summing(facts), _Numbers(facts)
    out = None if into is None else into.reshape(-1).view(np.uint8)
    sha, crc, at = hashlib.sha256(), 0, -facts.offset  # at: offset in the rows
    try:
        for part in pieces(path, facts.offset):
            crc = crc32(part, crc)
            if full:
                sha.update(part)
            if at >= 0 and (rows := part[: max(0, facts.row_bytes * facts.shape[0] - at)]):
                summing.update(rows)
                numbers.update(rows, at)
                if out is not None:
                    out[at : at + len(rows)] = rows
            at += len(part)
    except OSError as error:
        raise unreadable(path, error, cure or CURE) from error
    wrong = "crc32" if crc != facts.crc32 else "sha256"
    if crc != facts.crc32 or (full and sha.hexdigest() != facts.sha256):
        raise CorruptCacheError(
            f"{path} is not what was written (its {wrong} differs). ", cure or CURE
        )
    return Rows(summing.end(), numbers.end())


def read_rows(path: Path, facts: ShardFacts, cure: Part = "") -> Shaped[np.ndarray, "r ..."]:
    """Read all rows of a shard into a new array and verify them like `check_bytes`.

    Raises:
        CorruptCacheError: If the shard is damaged, or a value is not finite.
        UnreadableCacheError: If it could not be read.
    """
    check_size(path, facts, cure)
    check_facts(path, facts)
    values = np.empty(facts.shape, dtype=np.dtype(facts.dtype).newbyteorder("<"))
    rows = check_bytes(path, facts, cure, into=values)
    if len(rows.not_finite):
        first = f"row {rows.not_finite[0]}"
        raise CorruptCacheError(not_finite_message(path, rows, first, cure))
    return values


def not_finite_message(path: Path, rows: Rows, first: str, cure: Part = "") -> Part:
    """Compose the message for rows with values that are not finite.

    Args:
        path: File of the shard.
        rows: Result of reading it.
        first: Name of the first such row.
        cure: Advice, as for `check_bytes`.
    """
    return (
        f"{path} is as it was written, but {len(rows.not_finite)} of its rows have values that "
        f"are not finite (first: {first}). ",
        cure or CURE,
    )


def pieces(path: Path, cut: int = 0) -> Iterator[memoryview]:
    """Yield a plain file in pieces; each piece overwrites the one before.

    Args:
        path: File to read.
        cut: Offset at which a piece begins; from there on all pieces but the last have one size.

    Raises:
        CorruptCacheError: If it is a symbolic link, or not a plain file.
        OSError: If it cannot be read.
    """
    with os.fdopen(open_plain(path), "rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(CHUNK, 1 + os.fstat(file.fileno()).st_size)))
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        at = 0
        while True:
            wanted = min(len(buffer), cut - at) if at < cut else len(buffer)
            count = 0
            while count < wanted and (more := file.readinto(buffer[count:wanted])):
                count += more
            if not count:
                return
            yield buffer[:count]
            at += count


class _Numbers:
    """Finds rows that are not finite in pieces that begin anywhere."""

    def __init__(self, facts: ShardFacts) -> None:
        self._facts = facts
        self._dtype = np.dtype(facts.dtype).newbyteorder("<")
        self._rows: list[Int64[np.ndarray, " _"]] = []
        self._rest = b""

    def update(self, part: memoryview, at: int) -> None:
        """Add the bytes at offset `at` of the rows."""
        if self._facts.dtype == "int32":
            return
        if self._facts.dtype == "int8":
            self._take_tokens(part, at)
            return
        values = np.frombuffer(part, self._dtype, count=len(part) // self._dtype.itemsize)
        positions = not_finite(values)
        if len(positions):
            of_row = self._facts.row_bytes // self._dtype.itemsize
            self._rows.append((at // self._dtype.itemsize + positions) // of_row)

    def _take_tokens(self, part: memoryview, at: int) -> None:
        """Add int8 tokens; an incomplete token is kept for the next piece."""
        token = self._facts.shape[-1]
        data = self._rest + part if self._rest else part
        begin, whole = at - len(self._rest), len(data) // token * token
        tokens = np.frombuffer(data[:whole], np.int8).reshape(-1, token)
        positions = not_finite(tokens)
        if len(positions):
            self._rows.append((begin // token + positions) // (self._facts.row_bytes // token))
        self._rest = bytes(data[whole:])

    def end(self) -> Int64[np.ndarray, " k"]:
        """Return the rows that are not finite, ascending."""
        every = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
        return every[np.diff(every, prepend=-1) > 0]
