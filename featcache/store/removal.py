"""Remove a cache atomically, and clean up after interrupted removals.

A cache is first renamed to a temporary name, which is not recognised as a cache, and then deleted.
So a removal that is killed has happened or not. The next command that writes to a cache of the same
data set deletes the remains. Earlier versions deleted in place, key and manifest first; they left
folders with shards or a listing but without key and manifest.
"""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from featcache.errors import CacheError
from featcache.store.format.files import (
    TEMPORARY,
    delete_folder,
    explained,
    is_temporary,
    sync_folder,
    temporary_beside,
)
from featcache.store.format.identity import KNOWN_HASHES, LISTING, TRACE, is_cache, slug
from featcache.store.format.records import kind_of
from featcache.store.lock import writer_lock

_CACHE_NAME = re.compile(r"(?P<backbone>.+)-(?P<digest>[0-9a-f]{12})")


def remove(root: Path | str, path: Path | str) -> int:
    """Delete one cache, damaged or not, and return the bytes it took.

    Args:
        root: Folder of all caches.
        path: Folder of the cache, directly below the folder of its data set.

    Raises:
        CacheError: If it is not a cache of that root, or a process is writing to it.
    """
    root, path = Path(root), Path(path)
    inside = path.resolve().parent.parent == root.resolve()
    links = any(p.is_symlink() for p in (path, path.parent))
    if not inside or links or not is_cache(path):
        raise CacheError(
            f"{path} is not a cache of {root}, so it is left alone. `featcache ls` shows them."
        )
    freed = count_bytes(path)
    _put_aside(path, is_cache)
    _clear(path.parent)
    return freed


def finish_removal(path: Path) -> int:
    """Delete a folder that `left_by_removals` returned, and return the bytes it took.

    Raises:
        CacheError: If deleting fails, or a process is writing there.
    """
    freed, of_cache = count_bytes(path), is_left(path)
    if of_cache and not _is_aside(path):
        _put_aside(path, is_left)
    _clear(path.parent if of_cache else path)
    return freed


def left_by_removals(
    root: Path, dataset: str, backbone: str | None = None, key: str | None = None
) -> list[Path]:
    """Return the remains of interrupted removals of matching caches of a data set.

    Args:
        root: Folder of all caches.
        dataset: Name of the data set.
        backbone: Name of a backbone; None matches all.
        key: First digits of the digest of the key; None matches all.

    Returns:
        Folders of caches; or the folder of the data set if it contains nothing else.
    """
    remains: list[Path] = []
    for folder in sorted(root.glob("*/")):
        if slug(dataset).lower() != folder.name.lower() or folder.is_symlink():
            continue
        left = [path for path in sorted(folder.iterdir()) if is_left(path)]
        if not left and _has_nothing_else(folder):
            remains.append(folder)
        remains += [path for path in left if _fits(path, backbone, key)]
    return remains


def _clear(folder: Path) -> None:
    """Delete renamed caches, and the folder of the data set if it contains nothing else."""
    with explained(folder), suppress(FileNotFoundError):  # another process does the same
        if _has_nothing_else(folder):
            # Before the renamed caches, so that an interrupted clean-up can be continued.
            for path in folder.iterdir():
                if not path.is_dir():
                    path.unlink(missing_ok=True)
        clear_aside(folder)
        with suppress(OSError):  # another cache was created there meanwhile
            folder.rmdir()
            sync_folder(folder.parent)


def clear_aside(folder: Path) -> Sequence[str]:
    """Delete caches that an interrupted removal renamed; return a message if there were any.

    Raises:
        CacheError: If deleting fails.
    """
    aside = [path for path in folder.iterdir() if _is_aside(path)] if folder.is_dir() else []
    if aside:  # sync the new names, so that the old ones cannot reappear after a power cut
        with explained(folder):
            sync_folder(folder)
    for path in aside:
        with explained(path), suppress(FileNotFoundError):  # another process does the same
            delete_folder(path)
            sync_folder(folder)
    return [f"Deleted what an interrupted removal had left in {folder}."] if aside else []


def start_anew(path: Path) -> Sequence[str]:
    """Clear the folder of a new cache; return messages that say what was there.

    Args:
        path: Folder of the cache to be created.

    Raises:
        CacheError: If deleting fails, or a process is writing there.
    """
    notes = [*clear_aside(path.parent)]
    if is_left(path):
        _put_aside(path, is_left)
        clear_aside(path.parent)
        notes.append(
            f"{path} had neither key nor manifest, as an interrupted removal leaves it; what was "
            f"left there is deleted, and the cache starts anew."
        )
    return notes


def all_left(root: Path) -> list[Path]:
    """Return all folders of caches that interrupted removals left below a root."""
    folders = [folder for folder in sorted(root.glob("*/")) if not folder.is_symlink()]
    left: list[Path] = []
    for folder in folders:
        with suppress(OSError):  # removed meanwhile, or not readable
            left += [path for path in sorted(folder.iterdir()) if is_left(path)]
    return left


def is_left(path: Path) -> bool:
    """Tell whether a folder is the remains of an interrupted removal."""
    if path.is_symlink() or not path.is_dir():
        return False
    if _is_aside(path):
        return True
    is_ours = _CACHE_NAME.fullmatch(path.name) and not is_cache(path)
    return bool(is_ours) and any(p.name == LISTING or kind_of(p.name) for p in path.iterdir())


def _is_aside(path: Path) -> bool:
    """Tell whether a folder is a cache that was renamed to be deleted."""
    return is_temporary(path) and path.is_dir() and not path.is_symlink()


def count_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; what was deleted counts as 0."""
    if not path.is_dir():
        return _size(path)
    total = 0
    for folder, _, files in os.walk(path):
        total += sum(_size(Path(folder) / name) for name in files)
    return total


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.lstat().st_size
    return 0


def _put_aside(path: Path, is_due: Callable[[Path], bool]) -> None:
    """Lock a cache, check `is_due` again, and rename it durably to a temporary name."""
    aside = temporary_beside(path)
    with explained(path), writer_lock(path, lambda _: None):
        if is_due(path):  # another process may have begun a new cache there
            path.with_name(path.name + TRACE).unlink(missing_ok=True)
            path.rename(aside)
            sync_folder(path.parent)


def _has_nothing_else(folder: Path) -> bool:
    """Tell whether a data set has no caches except renamed ones, and no foreign files."""
    return all(
        is_temporary(path) or path.name == KNOWN_HASHES or _is_lone_trace(path)
        for path in folder.iterdir()
    )


def _is_lone_trace(path: Path) -> bool:
    return path.name.endswith(TRACE) and not path.with_name(path.name[: -len(TRACE)]).exists()


def digest_of(path: Path) -> str:
    """Return the digest in the name of a cache folder, renamed or not; "" if there is none."""
    parts = _name_parts(path)
    return "" if parts is None else parts["digest"]


def _fits(path: Path, backbone: str | None, key: str | None) -> bool:
    parts = _name_parts(path)
    if parts is None:
        return False
    fits_backbone = backbone is None or slug(backbone).lower() == parts["backbone"].lower()
    return fits_backbone and parts["digest"].startswith((key or "").lower())


def _name_parts(path: Path) -> re.Match[str] | None:
    name = path.name
    if _is_aside(path):
        name = name.removeprefix(".").rpartition(TEMPORARY)[0]
    return _CACHE_NAME.fullmatch(name)
