"""What lies below the root of the caches and nothing uses: found, and deleted on demand.

    remains of removed caches                what a killed removal has left
    temporary files of caches                of writers that were killed
    checksums without a shard, and shards that are damaged and have no record

Nothing that is finished and can be used is garbage: no cache, no sound shard, no text set, and no
corpus, which holds its rows itself. A cache that is being written to is left alone.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featcache.counts import counted
from featcache.errors import FeatcacheError
from featcache.store.cache import Cache
from featcache.store.format.checksums import sums_path
from featcache.store.format.files import is_temporary
from featcache.store.format.identity import MANIFEST, read_identity
from featcache.store.format.manifest import Contents, read_manifest
from featcache.store.library import caches
from featcache.store.lock import is_locked
from featcache.store.removal import all_left, count_bytes, finish_removal
from featcache.store.repair.orphans import find_orphans, lone_sums
from featcache.store.settle import folders


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Something that nothing uses."""

    path: Path
    """The folder or file; of files in a cache its folder."""
    what: str
    """What it is, in a few words."""
    bytes: int
    delete: Callable[[], object]
    """Delete it, as long as it is still garbage.

    Raises:
        CacheError: If a process is writing there, or deleting fails.
    """


def find_garbage(root: Path) -> Iterator[Garbage]:
    """Yield what no cache below a root uses; nothing is changed.

    Args:
        root: Folder of all caches.
    """
    for path in all_left(root):
        yield Garbage(
            path=path,
            what="remains of a removed cache",
            bytes=count_bytes(path),
            delete=partial(finish_removal, path),
        )
    for summary in caches(root):
        if summary.problem or is_locked(summary.path):
            continue  # damaged: `repair` looks at it
        files: list[Path] = []
        with suppress(FeatcacheError, OSError):  # removed meanwhile, or not readable
            files = unused_files(summary.path)
        if files:
            yield Garbage(
                path=summary.path,
                what=f"{counted(len(files), 'file')} that the cache does not use",
                bytes=sum(map(count_bytes, files)),
                delete=partial(_clean, summary.path),
            )


def unused_files(path: Path) -> list[Path]:
    """List temporary files, damaged shards without a record, and checksums without a shard.

    Args:
        path: Folder of a cache.

    Raises:
        CacheError: If the cache is damaged.
        OSError: If a folder cannot be read.
    """
    identity = read_identity(path)
    contents = Contents(read_manifest(path / MANIFEST, identity).lines)
    inside = (file for folder in folders(path) for file in folder.iterdir())
    files = [file for file in inside if is_temporary(file) and not file.is_dir()]
    for shard in find_orphans(path, identity.key.digest(), contents).useless:
        files += [shard, *(sums for sums in [sums_path(shard)] if sums.exists())]
    return sorted({*files, *lone_sums(path, contents)})


def _clean(path: Path) -> None:
    """Do what every writer does first: delete unused files, and take up sound shards."""
    with Cache.open(path).lock():
        pass
