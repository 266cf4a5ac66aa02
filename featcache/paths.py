"""Paths of users and listings, and safe opening of untrusted files.

File names are bytes. They are stored, shown and compared as UTF-8 text, whatever the locale; a byte
that is not UTF-8 becomes a lone surrogate.
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
    """Return a path that is a folder or does not exist.

    Args:
        path: Path to check.
        option: Argument or variable that named it, for the error message.

    Raises:
        CacheError: If there is something else, or above it.
    """
    with suppress(OSError):  # what cannot be looked at is said where it is used
        nearest = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
        if not nearest.is_dir():
            raise CacheError(
                f"{nearest} is a file, not a folder. Choose another with ", option, "."
            )
    return path


def expand(path: Path | str) -> Path:
    """Replace a leading `~` or `~user` by the home folder.

    Raises:
        UsageError: If the user is unknown.
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
    """Convert a path to text, independent of the locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def from_text(text: str) -> Path:
    """Convert text to a path; the inverse of `as_text`."""
    try:
        return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))
    except UnicodeEncodeError:  # a surrogate that encodes no byte: no such file exists
        return Path(text)


_MORE = 1 << 16
"""Bytes that are read at a time behind the size that a file reports."""


def open_regular(path: Path, limit: Limit | None = None) -> io.BufferedReader:
    """Open a regular file for reading; links are followed, pipes and devices are refused.

    Args:
        path: File to open.
        limit: Limit of its size; None if it is not read completely.

    Raises:
        OSError: If it is not a regular file, exceeds the limit, is missing or not readable.
        UsageError: If the variable of the limit is not a number.
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
    """Read a whole regular file; links are followed.

    Raises:
        OSError: As `open_regular`.
        UsageError: As `open_regular`.
    """
    with open_regular(path, limit) as file:
        # `read` sets memory aside for all that it is asked for: ask for the size, not the limit.
        data = file.read(os.fstat(file.fileno()).st_size + 1)
        while len(data) <= limit.value() and (more := file.read(_MORE)):
            data += more  # the file has grown, or reports size 0
    check_bytes(path, len(data), limit)
    return data


def open_descriptor(path: Path, *, links: bool = True) -> int:
    """Open a regular file for reading; never a device, since opening one may have side effects.

    Args:
        path: File to open.
        links: Whether to follow symbolic links.

    Raises:
        OSError: If it is not a regular file, is missing or not readable.
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


def pread(handle: int, offset: int, count: int) -> bytes:
    """Read at an offset without moving the file's position; fewer bytes only at the end.

    Raises:
        OSError: If the system refuses.
    """
    data = os.pread(handle, count, offset)
    if len(data) == count or not data:
        return data
    parts, at = [data], len(data)
    while at < count and (more := os.pread(handle, count - at, offset + at)):
        parts.append(more)
        at += len(more)
    return b"".join(parts)
