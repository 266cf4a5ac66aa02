"""Files and folders at a place that the user names: written beside it, put there in one step.

    .NAME.tmp-<pid>-<8 hex digits>      beside NAME, while it is written

What a killed command has left there is deleted by the next one that writes to the same place,
unless somebody else is writing in that folder.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featcache.scarcity import lacking
from featcache.store.format.files import (
    FULL,
    REFUSED,
    TEMPORARY,
    sync_file,
    sync_folder,
    temporary_beside,
)
from featcache.store.format.folder_lock import alone, shared
from featcache.wording import Argument, Part

NO_FILE = "something is there that is no plain file"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, whose file takes the place of `path` when the block has ended well.

    For writers that write to a path of their own; others call `write_atomically`.

    Raises:
        OSError: If the file cannot be put in place, or no plain file is there; what was there
            stays.
    """
    if in_the_way(path):
        raise OSError(NO_FILE)
    _clear(path)
    temporary = temporary_beside(path)
    with shared(path.parent):
        try:
            yield temporary
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` when the block has ended well.

    Its files are synced; it has no folders. Of two that make the same folder at once, one does.

    Raises:
        FileExistsError: If something is there.
        OSError: If it cannot be put in place; nothing is left then.
    """
    make_parents(folder)
    _clear(folder)
    temporary = temporary_beside(folder)
    with shared(folder.parent):
        try:
            _refuse_existing(folder)
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                sync_file(file)
            sync_folder(temporary)
            try:
                temporary.rename(folder)
            except OSError:
                _refuse_existing(folder)  # made meanwhile
                raise
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def make_parents(place: Path) -> None:
    """Make the folder that a place is in, and those above it.

    Raises:
        NotADirectoryError: If a file, or a link to nothing, is where a folder has to be.
        OSError: If it cannot be made.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        code = errno.ENOTDIR
        raise NotADirectoryError(code, os.strerror(code), str(place.parent)) from error


def in_the_way(place: Path) -> bool:
    """Tell whether something is there that no file may replace: a folder, a device, a pipe.

    A link is what it leads to; one that leads nowhere may be replaced.
    """
    try:
        return not stat.S_ISREG(place.stat().st_mode)
    except (OSError, ValueError):  # whoever writes to such a place hears why that cannot be
        return False


def not_written(place: Path, error: OSError, argument: Argument) -> list[Part]:
    """Say why a file or folder was not written, and what to do.

    Args:
        place: What was to be written.
        error: Error of the operating system.
        argument: Names the place.
    """
    why = os.strerror(error.errno) if error.errno else str(error)  # some libraries add to it
    said = f"{place} was not written ({why}). "
    if lack := lacking(error):
        return [said, lack]
    if error.errno in FULL:
        return [said, "Free some space, or choose another place with ", argument, "."]
    if error.errno in REFUSED:
        return [said, "Make it writable, or choose another place with ", argument, "."]
    return [said, "Choose another place with ", argument, "."]


def _refuse_existing(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(errno.EEXIST, "something is there already", str(folder))


def _clear(place: Path) -> None:
    """Delete what killed commands have left beside a place."""
    name = re.compile(re.escape(f".{place.name}{TEMPORARY}") + r"[0-9]+-[0-9a-f]{8}")
    left = [path for path in place.parent.iterdir() if name.fullmatch(path.name)]
    if not left:
        return
    with alone(place.parent) as is_alone:
        for path in left if is_alone else ():
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
