"""A whole file read once, by plain calls: its checksums, and what is wrong with its rows.

A failing disk is an error there, but a signal in a map.
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
"""Bytes in work at once: few enough to stay in the processor while they are looked at."""


@dataclass(frozen=True, slots=True)
class Checksums:
    """Size and checksums of a whole file."""

    bytes: int
    crc32: int
    sha256: str
    """Empty where it was not asked for."""
    rest_crc32: int
    """crc32 of what stands behind the bytes that were skipped."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What one reading of a sound shard found in its rows."""

    sums: RowSums
    not_finite: Int64[np.ndarray, " k"]
    """Positions of rows with a value that is not finite, ascending."""


def checksums(path: Path, *, sha256: bool, skip: int = 0) -> Checksums:
    """Read a whole file once.

    Args:
        path: A plain file.
        sha256: Whether to compute it too.
        skip: Bytes in front that `rest_crc32` leaves out.

    Raises:
        CorruptCacheError: If it is a symbolic link, or no plain file.
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
    """Read a whole shard and compare it with what was recorded: crc32, or sha256 too if `full`.

    Args:
        path: The shard.
        facts: What the manifest says of it.
        cure: What helps where it is damaged, if encoding again does not.
        full: Whether to compare sha256.
        into: Where its rows are put, of its shape and type.

    Raises:
        CorruptCacheError: If it is not what was written.
        UnreadableCacheError: If it could not be read.
    """
    check_size(path, facts, cure)
    check_facts(path, facts)
    summing, numbers = Summing(facts), _Numbers(facts)
    out = None if into is None else into.reshape(-1).view(np.uint8)
    sha, crc, at = hashlib.sha256(), 0, -facts.offset  # at: bytes behind the first of the rows
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
    """Read all rows of a shard into memory of their own, checked like `check_bytes`.

    Raises:
        CorruptCacheError: If the shard is not what was written, or a value is not finite.
        UnreadableCacheError: If it could not be read.
    """
    check_size(path, facts, cure)
    check_facts(path, facts)
    values = np.empty(facts.shape, dtype=np.dtype(facts.dtype).newbyteorder("<"))
    found = check_bytes(path, facts, cure, into=values)
    if len(found.not_finite):
        raise CorruptCacheError(say_not_finite(path, found, f"row {found.not_finite[0]}", cure))
    return values


def say_not_finite(path: Path, found: Rows, first: str, cure: Part = "") -> Part:
    """Say that rows contain values that are not finite.

    Args:
        path: The shard.
        found: In it.
        first: Names the first of the rows.
        cure: As for `check_bytes`.
    """
    return (
        f"{path} is as it was written, but {len(found.not_finite)} of its rows have values that "
        f"are not finite (first: {first}). ",
        cure or CURE,
    )


def pieces(path: Path, cut: int = 0) -> Iterator[memoryview]:
    """Yield a plain file from its first byte to its last; each piece overwrites the one before.

    Args:
        path: The file.
        cut: Where a piece begins; those from there on have the same size, but for the last.

    Raises:
        CorruptCacheError: If it is a symbolic link, or no plain file.
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
    """Looks for rows that are not finite, in pieces that begin anywhere."""

    def __init__(self, facts: ShardFacts) -> None:
        self._facts = facts
        self._dtype = np.dtype(facts.dtype).newbyteorder("<")
        self._found: list[Int64[np.ndarray, " _"]] = []
        self._rest = b""

    def update(self, part: memoryview, at: int) -> None:
        """Take the bytes from `at` on, behind the first of the rows."""
        if self._facts.dtype == "int32":
            return
        if self._facts.dtype == "int8":
            self._take_tokens(part, at)
            return
        values = np.frombuffer(part, self._dtype, count=len(part) // self._dtype.itemsize)
        found = not_finite(values)
        if len(found):
            of_row = self._facts.row_bytes // self._dtype.itemsize
            self._found.append((at // self._dtype.itemsize + found) // of_row)

    def _take_tokens(self, part: memoryview, at: int) -> None:
        """Tokens in eight bits mean something only whole."""
        token = self._facts.shape[-1]
        data = self._rest + part if self._rest else part
        begin, whole = at - len(self._rest), len(data) // token * token
        found = not_finite(np.frombuffer(data[:whole], np.int8).reshape(-1, token))
        if len(found):
            self._found.append((begin // token + found) // (self._facts.row_bytes // token))
        self._rest = bytes(data[whole:])

    def end(self) -> Int64[np.ndarray, " k"]:
        """Return the rows."""
        every = np.concatenate([np.empty(0, dtype=np.int64), *self._found])
        return every[np.diff(every, prepend=-1) > 0]
