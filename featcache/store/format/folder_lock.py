"""An advisory lock on a folder, shared by those who write in it: who has it alone may tidy up.

The kernel releases it when a process ends in any way. File systems without locks never give it.
Anybody else may lock the folder as well, as a shell with `flock FOLDER COMMAND` does for as long as
the command runs. So a writer says how long it waits before it goes on without the lock's promise.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 2.0
"""Seconds that tidying up a few files takes at most."""


@contextmanager
def shared(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep others from having a folder alone in the block; waits for one who has.

    Args:
        folder: The folder.
        patience: Seconds to wait; after them the block runs without the lock.
    """
    with _locked(folder, fcntl.LOCK_SH, patience):
        yield


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Yield whether nobody else holds the lock of a folder; nobody else gets it in the block."""
    with _locked(folder, fcntl.LOCK_EX, 0.0) as is_alone:
        yield is_alone


@contextmanager
def _locked(folder: Path, kind: int, patience: float) -> Iterator[bool]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _flock(handle, kind, time.monotonic() + patience)
    finally:
        with suppress(OSError):
            os.close(handle)


def _flock(handle: int, kind: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        except OSError:  # unsupported
            return False
