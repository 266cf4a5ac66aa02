"""A shard: a header, then HDF5 with one contiguous data set. Readers map the file.

h5py only writes. The file is composed in memory and written by system calls, so that a full disk is
an ordinary error and not a fault inside HDF5. Readers never parse HDF5: they take offset, shape and
dtype from the manifest, check them against the file and map it.
"""

import hashlib
import math
import mmap
import os
import resource
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.errors import CacheError, CorruptCacheError
from featcache.store.format.crc import crc32
from featcache.store.format.files import GONE, open_plain, refuse_link, unreadable, write_atomically
from featcache.store.format.finite import not_finite
from featcache.store.format.header import compose
from featcache.wording import Part

DATA_SET = "features"
DTYPES = ("float16", "float32", "int8", "int32")
"""Types of stored values, little-endian."""
CURE = "Run `featcache repair`, which encodes just these rows again."
GAP = 1 << 16
"""Largest gap in bytes between two rows that are prefetched together: cheaper than two requests."""

SAMPLE = 16
"""Approximate number of rows checked to see whether a shard is in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """Layout, size and checksums of a shard."""

    offset: int
    """Offset of the rows in bytes."""
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    """Size of the whole file."""
    crc32: int
    """Checksum of the whole file, as is `sha256`."""
    sha256: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    def fits(self) -> bool:
        """Tell whether the rows lie inside the file."""
        size = self.shape[0] * self.row_bytes
        return self.offset >= 0 and size > 0 and self.offset + size <= self.bytes


def write_shard(
    path: Path,
    values: Shaped[np.ndarray, "r ..."],
    *,
    about: Mapping[str, object] | None = None,
    attributes: Mapping[str, str | int] | None = None,
    name_of: Callable[[int], str] = "row {}".format,
) -> ShardFacts:
    """Write rows as one shard atomically.

    Equal rows, entries and attributes give equal bytes.

    Args:
        path: File to write; its folder exists.
        values: Rows [r ...] as stored.
        about: JSON values for the header, from which a lost record can be rebuilt.
        attributes: HDF5 attributes for people who open the file with another tool.
        name_of: Maps a row to the name of its image, for error messages.

    Raises:
        CacheError: If a value is not finite, or the file cannot be written.
    """
    if values.dtype.name not in DTYPES or values.size == 0:
        raise CacheError(
            f"A shard holds at least one row of {' or '.join(DTYPES)}; {path.parent.name} got "
            f"{values.dtype} of shape {list(values.shape)}."
        )
    _refuse_non_finite(path, values, name_of)
    import h5py

    rows = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    with h5py.File(
        path.name, "w", driver="core", backing_store=False, block_size=max(1 << 16, rows.nbytes)
    ) as file:
        data = file.create_dataset(DATA_SET, data=rows, track_times=False)
        for name, value in (attributes or {}).items():
            data.attrs[name] = value
        file.flush()
        offset = int(data.id.get_offset())
        image: bytes = file.id.get_file_image()
    layout = {"shape": list(rows.shape), "dtype": rows.dtype.name, "rest_crc32": crc32(image)}
    header = compose({**(about or {}), **layout}, offset=offset, behind=len(image))
    write_atomically(path, header, image)
    sha = hashlib.sha256(header)
    sha.update(image)
    return ShardFacts(
        offset=len(header) + offset,
        shape=tuple(rows.shape),
        dtype=rows.dtype.name,
        bytes=len(header) + len(image),
        crc32=crc32(image, crc32(header)),
        sha256=sha.hexdigest(),
    )


class MappedShard(NamedTuple):
    """The mapped rows of a shard, and a stamp of the state of the file."""

    values: Shaped[np.ndarray, "r ..."]
    stamp: tuple[int, ...]
    """Device, inode, size and times of change; equal stamps mean equal bytes."""


def map_shard(path: Path, facts: ShardFacts, cure: Part = "") -> MappedShard:
    """Map the rows of a shard copy-on-write, so that writing to them does not change the file.

    Only the size is checked; checked.py verifies the rows.

    Args:
        path: File of the shard.
        facts: Layout and checksums from the manifest.
        cure: Advice for a damaged shard; empty for the usual advice to repair.

    Raises:
        CorruptCacheError: If the file is missing or has a wrong size.
        UnreadableCacheError: If it could not be read.
    """
    check_size(path, facts, cure)
    check_facts(path, facts)
    dtype = np.dtype(facts.dtype).newbyteorder("<")
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            state = os.fstat(file.fileno())
            values = np.memmap(file, dtype=dtype, mode="c", offset=facts.offset, shape=facts.shape)
    except OSError as error:
        raise unreadable(path, error, cure or CURE) from error
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return MappedShard(values, (state.st_dev, state.st_ino, state.st_size, *times))


def is_whole(values: Shaped[np.ndarray, "..."], facts: ShardFacts) -> bool:
    """Tell whether a mapped file still has its size; reading beyond its end kills the process.

    Args:
        values: Rows from `map_shard`.
        facts: Layout of the shard.
    """
    try:
        return isinstance(values.base, mmap.mmap) and values.base.size() == facts.bytes
    except OSError:  # a network file system lost the file
        return False


def fetch(
    path: Path, facts: ShardFacts, position: Int64[np.ndarray, " k"], *, each: int = 1
) -> None:
    """Prefetch rows of a shard into the page cache.

    By page faults a disk would read the rows one by one, each with the read-ahead of the device:
    whole shards for a few rows. Systems without posix_fadvise still do. Nothing is prefetched if a
    sample of the rows is in memory.

    Args:
        path: File of the shard.
        facts: Layout of the shard.
        position: Rows [k] to be read, in any order; at least one.
        each: Rows per block; whole blocks are prefetched.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    width = facts.row_bytes * each
    some = position[:: max(1, len(position) // SAMPLE)] // each * width + facts.offset
    with suppress(OSError, CorruptCacheError):  # the file was removed; the mapping stays valid
        handle = open_plain(path)
        try:
            if _are_in_memory(handle, some.tolist()):
                return
            first = np.sort(position // each) * width + facts.offset
            cuts = np.flatnonzero(np.diff(first) > width + GAP)  # the last row before each gap
            starts = [int(first[0]), *first[cuts + 1].tolist()]
            stops = [*(first[cuts] + width).tolist(), int(first[-1]) + width]
            for start, stop in zip(starts, stops, strict=True):
                os.posix_fadvise(handle, start, stop - start, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)


def _are_in_memory(handle: int, places: Sequence[int]) -> bool:
    """Tell whether bytes of a file are in memory; False if the system cannot tell."""
    at_once = getattr(os, "RWF_NOWAIT", None)
    if at_once is None:
        return False
    byte = bytearray(1)
    try:
        return all(os.preadv(handle, [byte], place, at_once) for place in places)
    except OSError:  # not in memory, or not supported by the file system
        return False


def disk_reads() -> int:
    """Return the blocks that this thread has read from disk; 0 if the system does not count."""
    thread = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if thread is None else resource.getrusage(thread).ru_inblock


def check_facts(path: Path, facts: ShardFacts) -> None:
    """Refuse an invalid layout.

    Raises:
        CorruptCacheError: If the type is unknown, or the rows are outside the file.
    """
    if facts.dtype not in DTYPES or not facts.fits():
        raise CorruptCacheError(
            f"{path} is recorded with rows {list(facts.shape)} of {facts.dtype}, which do not lie "
            f"inside its {facts.bytes} bytes. Remove this cache and extract again."
        )


def check_size(path: Path, facts: ShardFacts, cure: Part = "") -> None:
    """Check the size of a shard.

    Raises:
        CorruptCacheError: If the file is missing, is not a plain file or has a wrong size, or if
            it or its folder is a symbolic link.
        UnreadableCacheError: If its size could not be read.
    """
    try:
        refuse_link(path.parent)
        refuse_link(path)
        state = path.stat()
        size = state.st_size if stat.S_ISREG(state.st_mode) else None
    except OSError as error:
        if error.errno not in GONE:
            raise unreadable(path, error, cure or CURE) from error
        size = None
    if size != facts.bytes:
        got = "it is missing" if size is None else f"it has {size}"
        raise CorruptCacheError(
            f"{path} should have {facts.bytes} bytes, but {got}. ", cure or CURE
        )


def _refuse_non_finite(
    path: Path, values: Shaped[np.ndarray, "..."], name_of: Callable[[int], str]
) -> None:
    rows = not_finite(values)
    if not len(rows):
        return
    raise CacheError(
        f"Component '{path.parent.name}' has {len(rows)} rows with values that are not "
        f"finite in {values.dtype} (first: {name_of(int(rows[0]))}); nothing of this shard was "
        f"written. Look at that image and at the weights."
    )
