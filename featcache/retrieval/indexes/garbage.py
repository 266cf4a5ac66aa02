"""Indexes that can no longer be used, and what interrupted builds and removals have left."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from featcache.errors import FeatcacheError
from featcache.retrieval.indexes.description import Description
from featcache.retrieval.indexes.folder import (
    all_names,
    clear_unused,
    descriptions,
    index_folder,
    remove_index,
    unused_files,
)
from featcache.store.format.identity import is_cache, read_identity
from featcache.store.garbage import Garbage
from featcache.store.lock import is_locked
from featcache.store.removal import count_bytes


def find_index_garbage(root: Path) -> Iterator[Garbage]:
    """Yield indexes of caches that are gone, and arrays that no index uses; changes nothing.

    An index is usable only with all caches that it was built from. A cache that is there and
    damaged may be repaired, so its indexes stay.

    Args:
        root: Folder of all caches.
    """
    there, is_certain = _present(root)
    described = dict(descriptions(root))
    for name in all_names(root):
        folder, index = index_folder(root, name), described.get(name)
        if isinstance(index, FeatcacheError) or is_locked(folder):
            continue
        unused: list[Path] = []
        with suppress(OSError):  # removed meanwhile
            unused = unused_files(root, name)
        covered = () if index is None else index.covered
        gone = [c for c in covered if (c.dataset, c.key) not in there]
        if gone and is_certain:
            yield Garbage(
                path=folder,
                what=f"index of the removed cache of {gone[0].dataset} with {gone[0].backbone}",
                bytes=count_bytes(folder),
                delete=partial(_remove, root, name),
            )
        elif unused:
            yield Garbage(
                path=folder,
                what="remains of an index" if index is None else "arrays of an interrupted build",
                bytes=sum(map(count_bytes, unused)),
                delete=partial(clear_unused, root, name),
            )


def _present(root: Path) -> tuple[set[tuple[str, str]], bool]:
    """Return data set and key of every cache, and whether all of them could be told."""
    there: set[tuple[str, str]] = set()
    is_certain = True
    for folder in root.glob("*/"):
        try:
            caches = [path for path in folder.iterdir() if is_cache(path)]
        except OSError:  # a folder that this user may not read is not gone
            is_certain = False
            continue
        for path in caches:
            try:
                identity = read_identity(path)
                there.add((identity.dataset, identity.key.digest()))
            except FeatcacheError:
                is_certain = False
    return there, is_certain


def _remove(root: Path, name: str) -> None:
    """Remove an index unless a cache of it was extracted again meanwhile."""
    there, is_certain = _present(root)
    for other, index in descriptions(root):
        if other == name and isinstance(index, Description) and is_certain:
            if any((c.dataset, c.key) not in there for c in index.covered):
                remove_index(root, name)
            return
