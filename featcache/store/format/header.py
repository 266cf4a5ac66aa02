"""What a shard says of itself: a block of text in front of the HDF5 data.

    block = one sealed JSON object, spaces, a line feed;  512 * 2^k bytes            (1)

HDF5 allows any bytes there. So a manifest line can be written again from the file alone, without
parsing HDF5, and a shard whose line is lost is not lost.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from featcache.store.format.files import open_plain
from featcache.store.format.seal import seal, unseal

SMALLEST = 512
LARGEST = 1 << 28
"""Bytes of a block that is read; one with a reason for each of 65,536 rows is smaller."""


def compose(about: Mapping[str, object], *, offset: int, behind: int) -> bytes:
    """Return the block (1) for a file, with `offset` and `bytes` as they are with the block.

    Args:
        about: What the block says besides.
        offset: Of the rows in what follows the block.
        behind: Bytes that follow the block.
    """
    size = SMALLEST
    while True:
        line, _ = seal({**about, "offset": size + offset, "bytes": size + behind})
        if len(line) <= size:
            return line[:-1].ljust(size - 1) + b"\n"
        size *= 2


def read_block(path: Path) -> tuple[dict[str, object], bytes]:
    """Read the block of a shard; return what it says, and its bytes.

    Raises:
        ValueError: With a predicate ("does not begin with a block") if it is not what was written.
        OSError: If the file is missing or may not be read.
        CorruptCacheError: If it is a symbolic link, or no plain file.
    """
    with os.fdopen(open_plain(path), "rb") as file:
        # Bounded by the file itself: a flipped line feed makes the line end somewhere behind.
        block = file.readline(LARGEST)
    blocks, rest = divmod(len(block), SMALLEST)
    if rest or blocks.bit_count() != 1 or not block.endswith(b"\n"):
        raise ValueError("does not begin with a block that describes it")
    about, _ = unseal(block[:-1].rstrip(b" "))
    return about, block
