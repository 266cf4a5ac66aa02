"""Paths as a user writes them and as a listing keeps them, and opening what others put there.

The name of a file is bytes. What is kept, shown and compared is their text in UTF-8, whatever the
locale says; a byte that is none becomes a lone surrogate.
"""

import errno
import io
import os
import stat
from contextlib import suppress
from pathlib import Path

from featcache.errors import CacheError, UsageError
from featcache.limits import Limit
from featcache.wording import Part


def check_folder(path: Path, *option: Part) -> Path:
    """Return a path where a folder is, or may be made.

    Args:
        path: What was given.
        option: What gave it.

    Raises:
        CacheError: If there is something else.
    """
    with suppress(OSError):  # what cannot be looked at is said where it is used
        if path.exists() and not path.is_dir():
            raise CacheError(f"{path} is a file, not a folder. Choose another with ", option, ".")
    return path


def expand(path: Path | str) -> Path:
    """Put the home folder in the place of a leading `~` or `~user`.

    Raises:
        UsageError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{path} begins with the home folder of somebody who is unknown here. Write the whole "
            f"path, or ./{path} if it is a name."
        ) from error


def file_in(path: Path) -> Path | None:
    """Return the file that a path is or leads into, as `photos.zip/summer`; None if there is none.

    Raises:
        OSError: If a folder on the way may not be entered.
    """
    return next((p for p in (path, *path.parents) if p.is_file()), None)


def as_text(path: Path | str) -> str:
    """Return a path as text that does not depend on the locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def from_text(text: str) -> Path:
    """Return the path that a text stands for."""
    try:
        return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte: there is no such file
        return Path(text)


def open_regular(path: Path, limit: Limit | None = None) -> io.BufferedReader:
    """Open a file for reading, links followed; a pipe or device, which may never end, is refused.

    Args:
        path: The file.
        limit: Of its size; None where it is not read whole.

    Raises:
        OSError: If it is no regular file, is larger than the limit, is missing or may not be read.
        UsageError: If the limit's variable is no number.
    """
    file = os.fdopen(open_descriptor(path), "rb")
    try:
        if limit is not None:
            check_bytes(path, os.fstat(file.fileno()).st_size, limit)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: Path, limit: Limit) -> bytes:
    """Read a file whole, links followed, as `open_regular` opens it.

    Raises:
        OSError: As there.
        UsageError: As there.
    """
    with open_regular(path, limit) as file:
        data = file.read(limit.value() + 1) or b""
    check_bytes(path, len(data), limit)  # some files grow, and some say that they are empty
    return data


def open_descriptor(path: Path, *, links: bool = True) -> int:
    """Open a regular file for reading, and nothing else: opening a device may do something.

    Args:
        path: The file.
        links: Whether a symbolic link is followed.

    Raises:
        OSError: If it is no regular file, is missing or may not be read.
    """
    _check_regular(path, path.stat() if links else path.lstat())
    more = 0 if links else os.O_NOFOLLOW
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | more)
    try:
        _check_regular(path, os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def check_bytes(name: object, size: int, limit: Limit) -> None:
    """Refuse what is larger than a limit.

    Args:
        name: What it is, for the message.
        size: Its bytes.
        limit: What it may have.

    Raises:
        OSError: If it has more.
    """
    if size > limit.value():
        raise OSError(
            errno.EFBIG,
            f"has {size} {limit.unit}, more than the limit of {limit.value()}; "
            f"{limit.variable} raises it",
            str(name),
        )
