"""A folder of one process, for a download that is moved into its place when it is whole.

It is locked as long as its process lives; that of a process which was killed is deleted by the
next one. Where the file system has no locks nobody can tell the two apart, and it stays.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def aside(name: str, parent: Path) -> Iterator[Path]:
    """Create a temporary folder of this process; delete it at the end of the block.

    Args:
        name: Name of the data set.
        parent: Where it shall be; it exists.
    """
    folder, handle = _locked(name, parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def clear_aside(name: str, parent: Path) -> None:
    """Delete the temporary folders of killed processes, where permissions allow."""
    for folder in parent.glob(f"{_prefix(name)}*"):
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _prefix(name: str) -> str:
    return f".{name}.partial-"


def _locked(name: str, parent: Path) -> tuple[Path, int]:
    """Make a folder and lock it, before or after another process looks whose it is."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=parent))
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists():
            return folder, handle
        os.close(handle)
