"""Checksums of single rows, or of blocks of narrow rows, in a file beside each shard.

    <rows>.sums    one sealed line that identifies the shard, then a crc32 for each block of rows

They are derived data; the manifest record of the shard is authoritative. If the file is missing or
does not fit the shard, the whole shard is read and verified before its rows are used.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt32

from featcache.errors import CacheError
from featcache.limits import METADATA
from featcache.store.format.crc import crc32
from featcache.store.format.files import clear_folder, read_limited, write_atomically
from featcache.store.format.seal import seal
from featcache.store.format.shard import ShardFacts

SUFFIX = ".sums"
BLOCK = 1 << 12
"""Bytes of rows that share a checksum: one page, the smallest unit of a disk read."""
HEADER = 1024
"""Most bytes of the sealed line; it takes fewer than 300."""


@dataclass(frozen=True, slots=True)
class RowSums:
    """crc32 of each block of rows of one shard."""

    each: int
    """Rows per block; the last block may have fewer."""
    values: UInt32[np.ndarray, " b"]


class Summing:
    """Computes checksums of rows from pieces of any size."""

    def __init__(self, facts: ShardFacts) -> None:
        """Choose the block size by the width of a row."""
        self._each = rows_per_sum(facts)
        self._size = self._each * facts.row_bytes
        self._sums = array("I")
        self._crc = self._begun = 0

    def update(self, part: memoryview) -> None:
        """Add the next bytes."""
        first = 0
        if self._begun:
            first = min(self._size - self._begun, len(part))
            self._crc = crc32(part[:first], self._crc)
            self._begun += first
            if self._begun < self._size:
                return
            self._sums.append(self._crc)
        size = self._size
        last = first + (len(part) - first) // size * size
        self._sums.extend([crc32(part[at : at + size]) for at in range(first, last, size)])
        self._crc, self._begun = crc32(part[last:]), len(part) - last

    def end(self) -> RowSums:
        """Return the checksums of all bytes so far."""
        if self._begun:
            self._sums.append(self._crc)
            self._begun = 0
        return RowSums(self._each, np.array(self._sums, dtype=np.uint32))


def sums_path(shard: Path) -> Path:
    """Return the path of the checksum file of a shard."""
    return shard.with_suffix(SUFFIX)


def sums_of(values: Shaped[np.ndarray, "r ..."], facts: ShardFacts) -> RowSums:
    """Compute the checksums of rows in memory as they are stored in a shard."""
    summing = Summing(facts)
    rows = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    summing.update(rows.reshape(-1).view(np.uint8).data)
    return summing.end()


def write_sums(shard: Path, facts: ShardFacts, sums: RowSums) -> None:
    """Write the checksum file of a shard that has been verified.

    Raises:
        CacheError: If writing fails.
    """
    clear_folder(sums_path(shard))
    write_atomically(sums_path(shard), _to_bytes(sums, facts))


def read_sums(shard: Path, facts: ShardFacts) -> RowSums | None:
    """Read the checksum file of a shard; None if it is missing, damaged or of another shard.

    Args:
        shard: File of the shard.
        facts: Layout and checksums from the manifest.
    """
    each = rows_per_sum(facts)
    count = -(-facts.shape[0] // each)
    try:
        data = read_limited(sums_path(shard), min(HEADER + 4 * count, METADATA.value()))
        values = np.frombuffer(data, dtype="<u4", offset=data.index(b"\n", 0, HEADER) + 1)
    except (CacheError, OSError, ValueError):
        return None  # the caller reads the whole shard
    sums = RowSums(each, values)
    return sums if len(values) == count and _to_bytes(sums, facts) == data else None


def beside(shard: Path, facts: ShardFacts, sums: RowSums) -> str | None:
    """Compare the checksum file of a shard with the right checksums.

    Returns:
        The fault with advice; empty if there is none, None if the file is missing.
    """
    path, expected = sums_path(shard), _to_bytes(sums, facts)
    try:
        if read_limited(path, HEADER + len(expected)) == expected:
            return ""
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} could not be read ({error.strerror}). Make it readable and try again."
    except CacheError:
        pass
    return f"{path} does not hold the checksums of the rows beside it. Run `featcache repair`."


def rows_per_sum(facts: ShardFacts) -> int:
    """Return how many rows share a checksum."""
    return max(1, BLOCK // facts.row_bytes)


def _to_bytes(sums: RowSums, facts: ShardFacts) -> bytes:
    """Return the content of the checksum file; equal shards have equal files."""
    data = sums.values.astype("<u4").tobytes()
    line, _ = seal(
        {
            "kind": "sums",
            "bytes": facts.bytes,
            "crc32": facts.crc32,
            "sha256": facts.sha256,
            "rows_per_sum": sums.each,
            "sums_crc32": crc32(data),
        }
    )
    return line + data
