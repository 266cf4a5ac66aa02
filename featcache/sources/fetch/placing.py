"""Moving unpacked files into place; existing files are never replaced."""

import filecmp
import os
import shutil
from pathlib import Path

from featcache.errors import SourceError
from featcache.sources.fetch.disk import explained
from featcache.store.format.files import sync_folder


def check_merge(source: Path, target: Path) -> None:
    """Check that a folder can be merged into another before anything is moved.

    Args:
        source: What will be moved.
        target: Where to; it may be missing.

    Raises:
        SourceError: If both have a file of one name and other content.
    """
    if not target.exists() and not target.is_symlink():
        return
    with explained(target):
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            there = target / entry.name
            if not there.exists() and not there.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False) and there.is_dir():
                check_merge(Path(entry.path), there)
            elif not (there.is_file() and filecmp.cmp(entry.path, there, shallow=False)):
                raise SourceError(
                    f"{there} is there already and is not what was fetched; nothing was replaced. "
                    f"Move it away and run the same command again."
                )


def merge(source: Path, target: Path) -> None:
    """Move what a folder holds into another, and delete it; after a kill the same call goes on.

    Args:
        source: A folder that passed `check_merge`.
        target: Where to; it is made if missing.

    Raises:
        SourceError: If the disk refuses.
    """
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            there = target / entry.name
            if entry.is_dir(follow_symlinks=False) and there.is_dir():
                merge(Path(entry.path), there)
            elif there.exists():  # equal, as was checked
                Path(entry.path).unlink()
            else:
                Path(entry.path).rename(there)
        source.rmdir()
        sync_folder(target)


def put_whole(source: Path, target: Path) -> bool:
    """Put a folder in place in one step, if there is nothing in its place.

    Returns:
        False where something is; nothing was moved then.

    Raises:
        SourceError: If the disk refuses.
    """
    if target.is_symlink() or (target.exists() and any(target.iterdir())):
        return False
    with explained(target):
        try:
            source.rename(target)
        except OSError:  # another process put a file there, or it is a mount point
            if target.exists():
                return False
            raise
        sync_folder(target.parent)
    return True


def remove(path: Path) -> None:
    """Delete a folder and all in it, if it is there.

    Raises:
        SourceError: If the disk refuses.
    """
    with explained(path):
        if path.exists():
            shutil.rmtree(path)
