"""The header of a shard: text in front of the HDF5 data that describes the shard.

    header = one sealed JSON object, spaces, a line feed;  512 * 2^k bytes           (1)

HDF5 allows any bytes there. So a lost manifest record can be rebuilt from the shard alone, without
parsing HDF5.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from featcache.store.format.files import open_plain
from featcache.store.format.seal import seal, unseal

SMALLEST = 512
LARGEST = 1 << 28
"""Most bytes of a header; one with a reason for each of 65,536 rows is smaller."""


def compose(about: Mapping[str, object], *, offset: int, behind: int) -> bytes:
    """Return the header (1) of a file; its `offset` and `bytes` include the header itself.

    Args:
        about: Further entries.
        offset: Offset of the rows in the HDF5 data.
        behind: Bytes of the HDF5 data.
    """
    size = SMALLEST
    while True:
        line, _ = seal({**about, "offset": size + offset, "bytes": size + behind})
        if len(line) <= size:
            return line[:-1].ljust(size - 1) + b"\n"
        size *= 2


def read_header(path: Path) -> tuple[dict[str, object], bytes]:
    """Read the header of a shard; return its entries and its bytes.

    Raises:
        ValueError: If it is damaged; the message is a predicate ("does not begin with a header").
        OSError: If the file is missing or may not be read.
        CorruptCacheError: If it is a symbolic link, or not a plain file.
    """
    with os.fdopen(open_plain(path), "rb") as file:
        # If the line feed is damaged, the line ends somewhere behind it or with the file.
        header = file.readline(LARGEST)
    units, rest = divmod(len(header), SMALLEST)
    if rest or units.bit_count() != 1 or not header.endswith(b"\n"):
        raise ValueError("does not begin with a header that describes it")
    about, _ = unseal(header[:-1].rstrip(b" "))
    return about, header
