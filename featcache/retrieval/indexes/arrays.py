"""Arrays of an index as files of plain values, written once and mapped when read."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from featcache.errors import CorruptCacheError
from featcache.progress import Report
from featcache.retrieval.indexes.description import ArrayFacts
from featcache.retrieval.kinds.structure import Pieces
from featcache.store.format.crc import crc32
from featcache.store.format.files import explained, open_plain, unreadable, write_all

CURE = "Build the index again with `featcache index build`, which replaces it."
STEP = 1 << 22
"""Bytes that are checked at once."""


def write_array(folder: Path, pieces: Pieces) -> ArrayFacts:
    """Write one array durably.

    Args:
        folder: Where to; the file must not exist.
        pieces: Values, whose number must fit the shape.

    Raises:
        CacheError: If writing fails.
    """
    path = _path(folder, pieces.name)
    crc, sha, size = 0, hashlib.sha256(), 0
    with explained(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        try:
            for part in pieces.parts:
                values = np.ascontiguousarray(part, dtype=pieces.layout.dtype).reshape(-1)
                data = values.view(np.uint8).data
                write_all(handle, data)
                crc, size = crc32(data, crc), size + len(data)
                sha.update(data)
            os.fsync(handle)
        finally:
            os.close(handle)
    facts = ArrayFacts(
        name=pieces.name,
        dtype=pieces.layout.dtype,
        shape=pieces.layout.shape,
        crc32=crc,
        sha256=sha.hexdigest(),
    )
    assert facts.bytes == size, f"{pieces.name} has {size} bytes, its shape {facts.bytes}"
    return facts


def map_array(folder: Path, facts: ArrayFacts) -> Shaped[np.ndarray, "..."]:
    """Map one array after its size and crc32 were compared.

    Args:
        folder: Folder of the arrays.
        facts: What it must be.

    Returns:
        The array; writing to it changes no file.

    Raises:
        CorruptCacheError: If it differs.
        UnreadableCacheError: If it could not be read.
        FileNotFoundError: If it is gone.
    """
    values = _mapped(folder, facts)
    crc = 0
    for part in _steps(values):
        crc = crc32(part, crc)
    if crc != facts.crc32:
        raise _differs(folder, facts, "checksum")
    return values.view(facts.dtype).reshape(facts.shape)


def check_array(folder: Path, facts: ArrayFacts, report: Report | None = None) -> None:
    """Compare size, crc32 and sha256; errors as `map_array`."""
    values = _mapped(folder, facts)
    crc, sha, done = 0, hashlib.sha256(), 0
    for part in _steps(values):
        crc, done = crc32(part, crc), done + len(part)
        sha.update(part)
        if report is not None:
            report(f"verify {facts.name}", done, len(values))
    if (crc, sha.hexdigest()) != (facts.crc32, facts.sha256):
        raise _differs(folder, facts, "checksum")


def _mapped(folder: Path, facts: ArrayFacts) -> Shaped[np.ndarray, " b"]:
    path = _path(folder, facts.name)
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            if os.fstat(file.fileno()).st_size != facts.bytes:
                raise _differs(folder, facts, "size")
            if not facts.bytes:
                return np.empty(0, dtype=np.uint8)
            return np.asarray(np.memmap(file, dtype=np.uint8, mode="c"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error, CURE) from error


def _steps(values: Shaped[np.ndarray, " b"]) -> Iterator[memoryview]:
    for first in range(0, len(values), STEP):
        yield values[first : first + STEP].data


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _differs(folder: Path, facts: ArrayFacts, what: str) -> CorruptCacheError:
    return CorruptCacheError(
        f"{_path(folder, facts.name)} has another {what} than was written. {CURE}"
    )
