"""Indexes below the root of the caches.

    <root>/.indexes/<name>/index.json             the description
    <root>/.indexes/<name>/arrays-<digits>/*.bin  its arrays; other such folders are leftovers

The description is replaced in one step after its arrays are on disk, so that a killed writer leaves
the old index or the new one. One process writes at a time; readers do not wait.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from featcache.errors import (
    CacheError,
    CacheNotFoundError,
    CorruptCacheError,
    FeatcacheError,
    UnknownNameError,
)
from featcache.progress import Report
from featcache.retrieval.indexes.arrays import CURE, check_array
from featcache.retrieval.indexes.description import (
    FOLDER,
    NAME,
    Description,
    check_index_name,
    parse,
)
from featcache.store.format.files import (
    delete_folder,
    explained,
    is_temporary,
    make_folder,
    read_limited,
    refuse_link,
    sync_folder,
    unreadable,
    write_atomically,
)
from featcache.store.lock import writer_lock
from featcache.store.removal import count_bytes
from featcache.wording import Call

INDEXES = ".indexes"
"""Folder of all indexes; no cache is below it."""
DESCRIPTION = "index.json"


def index_folder(root: Path, name: str) -> Path:
    """Return the folder of an index.

    Raises:
        UsageError: If the name is not valid.
        LinkInCacheError: If a link is in its place.
    """
    folder = root / INDEXES / check_index_name(name)
    refuse_link(folder.parent)
    refuse_link(folder)
    return folder


def index_names(root: Path) -> list[str]:
    """Return the names of all indexes, damaged ones too."""
    return sorted(path.parent.name for path in (root / INDEXES).glob(f"*/{DESCRIPTION}"))


def all_names(root: Path) -> list[str]:
    """Return the names of all folders of indexes, those without a description too.

    A build or a removal that was killed leaves such a folder.
    """
    folders = (path for path in (root / INDEXES).glob("*/") if not path.is_symlink())
    return sorted(path.name for path in folders if NAME.fullmatch(path.name))


def none_built(root: Path, name: str | None = None) -> CacheNotFoundError:
    """Return the error that says that there are no indexes, and how one is built.

    Args:
        root: Folder of all caches.
        name: The index that was asked for; None if any would do.
    """
    place = root / INDEXES
    none = (
        f"There are no indexes in {place}."
        if name is None
        else f"There is no index '{name}' in {place}, nor any other."
    )
    call = Call("featcache.retrieval.indexes.building.build_index", {})
    return CacheNotFoundError(f"{none} Build one with: ", call)


def read_description(root: Path, name: str) -> Description:
    """Read the description of an index.

    Raises:
        CacheNotFoundError: If there are no indexes.
        UnknownNameError: If there is none of that name.
        CorruptCacheError: If it is damaged.
    """
    folder = index_folder(root, name)
    path = folder / DESCRIPTION
    try:
        data = read_limited(path)
    except (FileNotFoundError, NotADirectoryError):
        names = index_names(root)
        if names:
            raise UnknownNameError("index", name, names) from None
        raise none_built(root, name) from None
    except OSError as error:
        raise unreadable(path, error, CURE) from error
    try:
        found = parse(data)
        if found.name != name:
            raise ValueError(f"is of an index called {found.name}")
    except ValueError as error:
        raise CorruptCacheError(f"{path} {error}. {CURE}") from error
    return found


def descriptions(root: Path) -> Iterator[tuple[str, Description | FeatcacheError]]:
    """Yield name and description of every index, or why it cannot be read."""
    for name in index_names(root):
        try:
            yield name, read_description(root, name)
        except FeatcacheError as error:
            yield name, error


@contextmanager
def replacing(root: Path, name: str) -> Iterator[Path]:
    """Lock an index and make an empty folder for new arrays, which is deleted unless it is used.

    Raises:
        CacheError: If another process is building it, or writing fails.
    """
    folder = index_folder(root, name)
    make_folder(folder)
    with writer_lock(folder, lambda _: None):
        _delete_unused(root, name)
        arrays = folder / f"arrays-{secrets.token_hex(4)}"
        make_folder(arrays)
        try:
            yield arrays
        finally:
            _delete_unused(root, name)


def put(root: Path, description: Description) -> None:
    """Make written arrays the current ones; the caller is inside `replacing`.

    Raises:
        CacheError: If writing fails.
    """
    folder = index_folder(root, description.name)
    with explained(folder):
        sync_folder(folder / description.folder)
    write_atomically(folder / DESCRIPTION, description.line())


def remove_index(root: Path, name: str) -> int:
    """Delete an index, damaged or not, and return the bytes it took.

    Raises:
        UnknownNameError: If there is none of that name.
        CacheNotFoundError: If there are no indexes.
        CacheError: If a process is writing to it, or deleting fails.
    """
    folder = index_folder(root, name)
    if not folder.is_dir():
        read_description(root, name)  # raises
    freed = count_bytes(folder)
    with writer_lock(folder, lambda _: None), explained(folder):
        (folder / DESCRIPTION).unlink(missing_ok=True)
        sync_folder(folder)  # gone as a whole before a part of it is
        _refuse_strangers(folder)
        delete_folder(folder)
    with suppress(OSError):
        folder.parent.rmdir()
    return freed


def verify_index(root: Path, name: str, report: Report | None = None) -> Description:
    """Read every byte of an index and compare size, crc32 and sha256.

    Raises:
        CacheNotFoundError: If there are no indexes.
        UnknownNameError: If there is none of that name.
        CorruptCacheError: If a file differs or is missing.
    """
    found = read_description(root, name)
    folder = index_folder(root, name) / found.folder
    refuse_link(folder)
    for facts in found.arrays:
        try:
            check_array(folder, facts, report)
        except FileNotFoundError as error:
            raise CorruptCacheError(f"{folder / facts.name}.bin is missing. {CURE}") from error
    return replace(found)


def unused_files(root: Path, name: str) -> list[Path]:
    """List arrays that the description of an index does not name, and temporary files.

    Raises:
        CacheError: If the folder of the index cannot be used.
    """
    folder = index_folder(root, name)
    used = ""
    with suppress(CacheError, UnknownNameError):
        used = read_description(root, name).folder
    return [
        path
        for path in folder.iterdir()
        if (FOLDER.fullmatch(path.name) and path.name != used and not path.is_symlink())
        or (is_temporary(path) and not path.is_dir())
    ]


def clear_unused(root: Path, name: str) -> None:
    """Delete what `unused_files` lists, unless the index is being built.

    The folder stays where it is empty then: a build may just be about to lock it.

    Raises:
        CacheError: If another process is building it, or deleting fails.
    """
    with writer_lock(index_folder(root, name), lambda _: None):
        _delete_unused(root, name)


def _delete_unused(root: Path, name: str) -> None:
    """Delete what the description does not name.

    Raises:
        CacheError: If deleting fails.
    """
    for path in unused_files(root, name):
        with explained(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _refuse_strangers(folder: Path) -> None:
    """Refuse to delete a folder that holds what no index holds.

    Raises:
        CacheError: If it does.
    """
    for path in folder.iterdir():
        if not (FOLDER.fullmatch(path.name) or path.name.startswith(".") or path.is_symlink()):
            raise CacheError(f"{path} does not belong to an index. Move it away, and try again.")
