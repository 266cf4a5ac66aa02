"""A shard: a block that describes it, then HDF5 with one contiguous data set; read by mapping.

h5py runs on our own values only. The file is composed in memory and written by plain system
calls, so a full disk is an ordinary error and not a fault inside HDF5. Readers never parse HDF5:
they take offset, shape and dtype from the manifest, check them against the file and map it.
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
"""What a shard may hold, little-endian."""
CURE = "Run `featcache repair`, which encodes just these rows again."
GAP = 1 << 16
"""Bytes between two rows that are fetched along with them: one request costs more than these."""

SAMPLE = 16
"""Rows of a shard that are looked for in memory, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """What a reader must know of a shard, and what a check compares."""

    offset: int
    """Byte at which the rows begin."""
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
    """Write rows as one shard; the file appears whole or not at all.

    Equal rows, descriptions and attributes give equal bytes.

    Args:
        path: Where the shard goes; its folder exists.
        values: Rows [r ...] as they shall be stored.
        about: Plain JSON values that stand in front, for programs that lost the manifest.
        attributes: Small facts for people who open the file with another tool.
        name_of: Says which image a row is, for the error message.

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
    said = {"shape": list(rows.shape), "dtype": rows.dtype.name, "rest_crc32": crc32(image)}
    block = compose({**(about or {}), **said}, offset=offset, behind=len(image))
    write_atomically(path, block, image)
    sha = hashlib.sha256(block)
    sha.update(image)
    return ShardFacts(
        offset=len(block) + offset,
        shape=tuple(rows.shape),
        dtype=rows.dtype.name,
        bytes=len(block) + len(image),
        crc32=crc32(image, crc32(block)),
        sha256=sha.hexdigest(),
    )


class MappedShard(NamedTuple):
    """The rows of a shard, mapped, and which state of which file they are."""

    values: Shaped[np.ndarray, "r ..."]
    stamp: tuple[int, ...]
    """Device, inode, size, and times of change: equal stamps are the same bytes."""


def map_shard(path: Path, facts: ShardFacts, cure: Part = "") -> MappedShard:
    """Map the rows of a shard; copy-on-write, so nobody can change the file through them.

    Nothing but the size is compared: what is taken from a map must be checked (checked.py).

    Args:
        path: The shard.
        facts: What the manifest says of it.
        cure: What helps where it is damaged, if encoding again does not; as for all checks here.

    Raises:
        CorruptCacheError: If the file is missing or is not of the recorded size.
        UnreadableCacheError: If the system does not hand it out.
    """
    check_size(path, facts, cure)
    check_facts(path, facts)
    dtype = np.dtype(facts.dtype).newbyteorder("<")
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            found = os.fstat(file.fileno())
            values = np.memmap(file, dtype=dtype, mode="c", offset=facts.offset, shape=facts.shape)
    except OSError as error:
        raise unreadable(path, error, cure or CURE) from error
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return MappedShard(values, (found.st_dev, found.st_ino, found.st_size, *times))


def is_whole(values: Shaped[np.ndarray, "..."], facts: ShardFacts) -> bool:
    """Tell whether the file behind a mapping still has its size; touching lost bytes is fatal.

    Args:
        values: What `map_shard` gave.
        facts: What it was given.
    """
    try:
        return isinstance(values.base, mmap.mmap) and values.base.size() == facts.bytes
    except OSError:  # of a network file system that lost the file
        return False


def fetch(
    path: Path, facts: ShardFacts, position: Int64[np.ndarray, " k"], *, each: int = 1
) -> None:
    """Have the system read rows of a shard into its cache, all at once and little beside them.

    Left to page faults, a cold disk reads one row after the other and each with the read-ahead of
    the device around it: whole shards for a few rows. A system that does not fetch reads so still.
    Where some of the rows are found in memory, nothing is asked for.

    Args:
        path: The shard.
        facts: What the manifest says of it.
        position: Rows [k] that are about to be read, in any order; at least one.
        each: Rows of a block: whole blocks are read.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    width = facts.row_bytes * each
    some = position[:: max(1, len(position) // SAMPLE)] // each * width + facts.offset
    with suppress(OSError, CorruptCacheError):  # removed meanwhile, which leaves the mapping whole
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
    """Tell whether bytes of a file can be read without a disk; False where the system is silent."""
    at_once = getattr(os, "RWF_NOWAIT", None)
    if at_once is None:
        return False
    byte = bytearray(1)
    try:
        return all(os.preadv(handle, [byte], place, at_once) for place in places)
    except OSError:  # they would have to be waited for, or the file system cannot tell
        return False


def disk_reads() -> int:
    """Count the blocks that this thread had a disk read; 0 where the system does not count them."""
    thread = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if thread is None else resource.getrusage(thread).ru_inblock


def check_facts(path: Path, facts: ShardFacts) -> None:
    """Refuse facts that no shard of ours has.

    Raises:
        CorruptCacheError: If the type is unknown, or the rows lie outside the file.
    """
    if facts.dtype not in DTYPES or not facts.fits():
        raise CorruptCacheError(
            f"{path} is recorded with rows {list(facts.shape)} of {facts.dtype}, which do not lie "
            f"inside its {facts.bytes} bytes. Remove this cache and extract again."
        )


def check_size(path: Path, facts: ShardFacts, cure: Part = "") -> None:
    """Compare a file's size with what was recorded.

    Raises:
        CorruptCacheError: If the file is missing, is no plain file or has another size, or if it
            or its folder is a symbolic link.
        UnreadableCacheError: If the system does not tell.
    """
    try:
        refuse_link(path.parent)
        refuse_link(path)
        found = path.stat()
        size = found.st_size if stat.S_ISREG(found.st_mode) else None
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
    found = not_finite(values)
    if not len(found):
        return
    raise CacheError(
        f"Component '{path.parent.name}' has {len(found)} rows with values that are not "
        f"finite in {values.dtype} (first: {name_of(int(found[0]))}); nothing of this shard was "
        f"written. Look at that image and at the weights."
    )
