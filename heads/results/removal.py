"""Removing runs: renamed first, so that a run is there as a whole or not at all."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from featcache.errors import CacheError, FeatcacheError
from featcache.store.format.files import delete_folder, sync_folder
from featcache.store.removal import count_bytes
from heads.results import leftovers
from heads.results.named import equal_runs, seeds_of


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
        delete_folder(aside)  # `featcache gc` may be deleting it as well
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
        same = [(other, place) for other, place in equal_runs(root, folder) if place != folder]
    except FeatcacheError:
        return []
    if any(seeds_of(place) for _, place in same):
        return []  # another run keeps them, too
    return [other.run for other, _ in same]
