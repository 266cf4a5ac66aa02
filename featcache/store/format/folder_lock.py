"""An advisory lock on a folder, shared by those who write in it: who has it alone may tidy up.

The kernel releases it when a process ends in any way. File systems without locks never give it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Keep others from having a folder alone while the block runs; waits for one who has it."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Yield whether nobody else holds the lock of a folder; nobody else gets it in the block."""
    with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_alone:
        yield is_alone


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[bool]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _flock(handle, kind)
    finally:
        with suppress(OSError):
            os.close(handle)


def _flock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind)
    except OSError:  # held by others and not waited for, or unsupported
        return False
    return True
