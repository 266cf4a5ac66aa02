"""Taking a cache away in one step, and clearing what an interrupted removal has left.

A cache is renamed aside first, to a name that nobody takes for a cache, and deleted there: killed
at any instant, a removal has happened or it has not. What it left goes with the next command that
writes to a cache of that data set. Earlier versions deleted in place, key and manifest first: what
they left is a folder that has shards or a listing, and neither of the two.
"""

import os
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from featcache.errors import CacheError
from featcache.store.format.files import delete_folder, explained, is_temporary, sync_folder
from featcache.store.format.identity import KNOWN_HASHES, LISTING, TRACE, is_cache, slug
from featcache.store.format.records import kind_of
from featcache.store.lock import writer_lock

_CACHE_NAME = re.compile(r"(?P<backbone>.+)-(?P<digest>[0-9a-f]{12})")
_ASIDE = ".tmp-"
"""Between the name of a cache and what makes its name aside unique, behind a dot."""


def remove(root: Path | str, path: Path | str) -> int:
    """Delete one cache and return the bytes it took; it may be damaged.

    Args:
        root: Folder of all caches.
        path: The cache, directly below the folder of its data set.

    Raises:
        CacheError: If this is no cache of that root, or somebody writes to it.
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
    """Delete what `left_by_removals` named and return the bytes it took.

    Raises:
        CacheError: If the disk refuses, or somebody writes there.
    """
    freed, of_cache = count_bytes(path), is_left(path)
    if of_cache and not _is_aside(path):
        _put_aside(path, is_left)
    _clear(path.parent if of_cache else path)
    return freed


def left_by_removals(
    root: Path, dataset: str, backbone: str | None = None, key: str | None = None
) -> list[Path]:
    """Name what interrupted removals have left of the caches of a data set that fit.

    Args:
        root: Folder of all caches.
        dataset: Name of the data set.
        backbone: Name of a backbone; None fits all.
        key: First digits of the key's digest; None fits all.

    Returns:
        Folders of caches; or that of the data set, if there is nothing in it that matters.
    """
    found: list[Path] = []
    for folder in sorted(root.glob("*/")):
        if slug(dataset).lower() != folder.name.lower() or folder.is_symlink():
            continue
        left = [path for path in sorted(folder.iterdir()) if is_left(path)]
        if not left and _has_nothing_else(folder):
            found.append(folder)
        found += [path for path in left if _fits(path, backbone, key)]
    return found


def _clear(folder: Path) -> None:
    """Delete caches that were put aside, and the data set's folder if nothing else is in it."""
    with explained(folder), suppress(FileNotFoundError):  # another process is at the same
        if _has_nothing_else(folder):
            # While caches are still aside, so that whoever looks finds something to go on with.
            for path in folder.iterdir():
                if not path.is_dir():
                    path.unlink(missing_ok=True)
        clear_aside(folder)
        with suppress(OSError):  # another cache was put there meanwhile
            folder.rmdir()
            sync_folder(folder.parent)


def clear_aside(folder: Path) -> Sequence[str]:
    """Delete caches that an interrupted removal put aside; return a sentence if there were any.

    Raises:
        CacheError: If the disk refuses.
    """
    aside = [path for path in folder.iterdir() if _is_aside(path)] if folder.is_dir() else []
    if aside:  # a killed removal may not have synced the new names: the old ones must not come back
        with explained(folder):
            sync_folder(folder)
    for path in aside:
        with explained(path), suppress(FileNotFoundError):  # another process is at the same
            delete_folder(path)
            sync_folder(folder)
    return [f"Deleted what an interrupted removal had left in {folder}."] if aside else []


def start_anew(path: Path) -> Sequence[str]:
    """Clear the place of a new cache; return sentences that say what was there.

    Args:
        path: Where the cache will be.

    Raises:
        CacheError: If the disk refuses, or somebody writes there.
    """
    said = [*clear_aside(path.parent)]
    if is_left(path):
        _put_aside(path, is_left)
        clear_aside(path.parent)
        said.append(
            f"{path} had neither key nor manifest, as an interrupted removal leaves it; what was "
            f"left there is deleted, and the cache starts anew."
        )
    return said


def all_left(root: Path) -> list[Path]:
    """Name every folder of a cache that an interrupted removal has left below a root."""
    folders = [folder for folder in sorted(root.glob("*/")) if not folder.is_symlink()]
    return [path for folder in folders for path in sorted(folder.iterdir()) if is_left(path)]


def is_left(path: Path) -> bool:
    """Tell whether a folder is what an interrupted removal of a cache left."""
    if path.is_symlink() or not path.is_dir():
        return False
    if _is_aside(path):
        return True
    is_ours = _CACHE_NAME.fullmatch(path.name) and not is_cache(path)
    return bool(is_ours) and any(p.name == LISTING or kind_of(p.name) for p in path.iterdir())


def _is_aside(path: Path) -> bool:
    """Tell whether a folder is a cache that was put aside to be deleted."""
    return is_temporary(path) and path.is_dir() and not path.is_symlink()


def count_bytes(path: Path) -> int:
    """Return the bytes of all files below a folder; those that go meanwhile count nothing."""
    found = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(FileNotFoundError):
                found += (Path(folder) / name).lstat().st_size
    return found


def _put_aside(path: Path, is_due: Callable[[Path], bool]) -> None:
    """Let a cache be none, in one step that survives a power cut, if it is still due then."""
    aside = path.with_name(f".{path.name}{_ASIDE}{os.getpid()}-{secrets.token_hex(4)}")
    with explained(path), writer_lock(path, lambda _: None):
        if is_due(path):  # another process may have begun a new cache there
            path.with_name(path.name + TRACE).unlink(missing_ok=True)
            path.rename(aside)
            sync_folder(path.parent)


def _has_nothing_else(folder: Path) -> bool:
    """Tell whether a data set has no caches but those put aside, and no files of others."""
    return all(
        is_temporary(path) or path.name == KNOWN_HASHES or _is_lone_trace(path)
        for path in folder.iterdir()
    )


def _is_lone_trace(path: Path) -> bool:
    return path.name.endswith(TRACE) and not path.with_name(path.name[: -len(TRACE)]).exists()


def digest_of(path: Path) -> str:
    """Return the digits of the key's digest in a folder's name, put aside or not; "" if none."""
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
        name = name.removeprefix(".").rpartition(_ASIDE)[0]
    return _CACHE_NAME.fullmatch(name)
