"""Sync the files of a killed writer before the next writer builds on them.

A killed process loses no data, but its last writes may not be on disk yet. Without this sync, a
power cut after the next command could remove files that its work depends on.
"""

from pathlib import Path

from featcache.store.format.files import sync_file, sync_folder, sync_names
from featcache.store.format.identity import MANIFEST

LOCK = ".lock"
"""Contains the pid of the current or killed writer; otherwise empty."""
DEPTH = 3
"""Levels of folders: the cache, a component or the listing, a set of the listing."""


def settle(folder: Path) -> None:
    """Sync the files of a cache if its last writer was killed.

    Args:
        folder: Folder of the cache.

    Raises:
        OSError: If syncing fails.
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
    """List the folders of a cache that contain files; links are not followed."""
    every, level = [folder], [folder]
    for _ in range(DEPTH - 1):
        inside = [path for above in level for path in above.iterdir()]
        level = [path for path in inside if path.is_dir() and not path.is_symlink()]
        every += level
    return every
