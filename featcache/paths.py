"""Paths as a user writes them, and opening what somebody else has put there."""

import errno
import io
import os
import stat
from pathlib import Path

from featcache.errors import UsageError


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


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading, links followed; a pipe or device, which may never end, is refused.

    Raises:
        OSError: If it is no regular file, is missing or may not be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(handle, "rb")
