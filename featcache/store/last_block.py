"""The weights of the last block in a cache that holds the tokens before it.

last_block.safetensors    `featcache.last_block.LastBlock`, float32, with a sealed description

There is one for all components of tokens: the key of the cache fixes the weights. So the manifest
has no record of it, and the backbone writes it again where it is lost.
"""

from pathlib import Path

import torch

from featcache.errors import CorruptCacheError, NewerFormatError
from featcache.last_block import LastBlock
from featcache.store.format.files import clear_folder, read_limited, unreadable, write_atomically
from featcache.store.format.identity import LAST_BLOCK_FILE
from featcache.store.format.tensors import compose, describe, load
from featcache.wording import Part

FORMAT = 1
METADATA = "featcache_last_block"
CURE = "Run `featcache repair`, which takes the weights from the backbone again."


def write_last_block(folder: Path, block: LastBlock, key: str) -> None:
    """Write a last block atomically; the caller holds the lock of the cache.

    Args:
        folder: Folder of the cache.
        block: Last block of its backbone.
        key: Digest of the key of the cache.

    Raises:
        CacheError: If writing fails.
    """
    description = {
        "format": FORMAT,
        "key": key,
        "settings": block.settings(),
        "sha256": block.digest,
    }
    clear_folder(folder / LAST_BLOCK_FILE)
    write_atomically(folder / LAST_BLOCK_FILE, compose(block.tensors, METADATA, description))


def read_last_block(folder: Path, key: str, cure: Part = CURE) -> LastBlock:
    """Read a last block, comparing every byte with its checksums.

    Args:
        folder: Folder of the cache.
        key: Digest of the key of the cache.
        cure: Advice for a damaged file.

    Raises:
        CorruptCacheError: If the file is missing, damaged or of another cache.
        UnreadableCacheError: If it could not be read.
        NewerFormatError: If a later version wrote it.
        CacheError: If it is larger than FEATCACHE_MAX_METADATA.
    """
    path = folder / LAST_BLOCK_FILE
    try:
        data = read_limited(path)
    except OSError as error:
        raise unreadable(path, error, cure) from error
    try:
        description, is_whole = describe(data, METADATA)
        version = description["format"]
        if not isinstance(version, int) or version > FORMAT:
            raise NewerFormatError(
                f"{path} was written by a later version (format {version}, this program reads up "
                f"to {FORMAT}). Upgrade featcache to read it."
            )
        if not is_whole:
            raise ValueError("is not what was written")
        if description["key"] != key:
            raise ValueError("is of another backbone")
        block = LastBlock(**description["settings"], tensors=load(data))
        if not all(bool(torch.isfinite(t).all()) for t in block.tensors.values()):
            raise ValueError("has values that are not finite")
        if block.digest != description["sha256"]:
            raise ValueError("is not what was written")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptCacheError(f"{path} {_predicate(error)}. ", cure) from error
    return block


def _predicate(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"cannot be parsed ({error!r:.100})"
