"""Removing runs: renamed first, so that a run is there as a whole or not at all."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from featcache.errors import CacheError, FeatcacheError
from featcache.store.format.files import sync_folder
from featcache.store.removal import count_bytes
from heads.results import leftovers, store
from heads.results.named import seeds_of
from heads.results.record import Result


def remove(root: Path, folder: Path) -> int:
    """Delete a run, damaged or not, with its heads, and return the bytes it took.

    A removal that is killed leaves a temporary folder, which the next run that is stored removes.

    Args:
        root: Folder of all runs.
        folder: Folder of the run, as `store.find` names it.

    Raises:
        CacheError: If it is no run of that root, or cannot be deleted.
    """
    links = [p for p in (folder, folder.parent, folder.parent.parent) if p.is_symlink()]
    if links or folder.resolve().parents[2] != root.resolve() or folder.name.startswith("."):
        raise CacheError(f"{folder} is not a run of {root}, so it is left alone.")
    freed = count_bytes(folder)
    aside = leftovers.name_for(folder)
    try:
        folder.rename(aside)
        sync_folder(folder.parent)
        shutil.rmtree(aside)
        for empty in (folder.parent, folder.parent.parent):
            with suppress(OSError):  # it holds other runs
                empty.rmdir()
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be removed ({error.strerror or error}). Make it writable and run "
            f"the same command again."
        ) from error
    return freed


def served_by(root: Path, folder: Path) -> Sequence[str]:
    """Name the other runs whose heads are kept with a run: they were answered without training."""
    if not seeds_of(folder):
        return []
    try:
        result: Result = store.load(folder, predictions=False)
    except FeatcacheError:
        return []
    records = store.load_records(root, result.dataset, result.backbone, result.key)
    same = [(other, place) for other, place in records if result.fit and other.fit == result.fit]
    if any(place != folder and seeds_of(place) for _, place in same):
        return []  # another run keeps them, too
    return [other.run for other, place in same if place != folder]
