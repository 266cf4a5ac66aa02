"""What a killed writer had not synced is synced by the next one, before anything builds on it.

A killed process loses nothing, but what it did last may be on no disk yet: a power cut after the
next command has reported its work could then take away what that work rests on.
"""

from pathlib import Path

from featcache.store.format.files import sync_file, sync_folder, sync_names
from featcache.store.format.identity import MANIFEST

LOCK = ".lock"
"""Holds the number of the process that writes, and of one that was killed; else it is empty."""
DEPTH = 3
"""Levels of folders with files of ours: the cache, a component or the listing, a listing's set."""


def settle(folder: Path) -> None:
    """Make durable what is in a cache if its last writer did not end in peace.

    Args:
        folder: The cache.

    Raises:
        OSError: If the disk refuses.
    """
    lock = folder / LOCK
    if not lock.exists() or not lock.stat().st_size:
        return
    if (folder / MANIFEST).is_file():
        sync_file(folder / MANIFEST)
    for inside in folders(folder):
        sync_folder(inside)
    sync_names(folder)


def folders(folder: Path) -> list[Path]:
    """List the folders that hold files of a cache; links are not followed."""
    found, level = [folder], [folder]
    for _ in range(DEPTH - 1):
        inside = [path for above in level for path in above.iterdir()]
        level = [path for path in inside if path.is_dir() and not path.is_symlink()]
        found += level
    return found
