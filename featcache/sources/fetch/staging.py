"""Temporary folder beside a data set in which one process at a time fetches it.

What a killed process left there is continued. A second process waits for the first. Where the file
system has no locks, nobody can tell a process that lives from one that was killed: there each has a
folder of its own, and what it leaves is not continued.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featcache.errors import SourceError
from featcache.sources.base import Report
from featcache.sources.fetch.aside import aside, clear_aside
from featcache.sources.fetch.disk import explained
from featcache.store.format.files import write_all
from featcache.store.lock import NO_LOCKS

LOCK = "lock"
POLL = 0.2
"""Seconds between two looks at a folder that another process uses."""
STANDSTILL = 1800.0
"""Seconds without a sign of life of that process after which waiting is given up."""
BEAT = 10.0
"""Seconds between two signs of life."""


def staging_folder(into: Path) -> Path:
    """Return the temporary folder of a data set."""
    return into.parent / f".{into.name}.fetch"


@contextmanager
def staging(into: Path, title: str, report: Report | None) -> Iterator[tuple[Path, Report]]:
    """Lock the temporary folder of a data set while the block runs.

    Args:
        into: Where the data set will be.
        title: Title of the data set, for messages.
        report: Told that another process is waited for.

    Yields:
        The folder, and what to report to: it passes on to `report` and shows others that this
        process lives.

    Raises:
        SourceError: If the folder cannot be made, or the process that holds it stands still.
    """
    path = staging_folder(into)
    with explained(path):
        into.parent.mkdir(parents=True, exist_ok=True)
    handle = _locked(path, title, report)
    if handle is None:
        clear_aside(into.name, into.parent)
        with aside(into.name, into.parent) as folder:
            yield folder, report or (lambda *_: None)
        return
    try:
        yield path, _beating(handle, report)
    finally:
        with suppress(OSError):  # where nothing came, nothing stays
            if [entry.name for entry in path.iterdir()] == [LOCK]:
                (path / LOCK).unlink()
                path.rmdir()
        os.close(handle)


def _locked(path: Path, title: str, report: Report | None) -> int | None:
    """Make a folder and lock it; None where the file system has no locks."""
    seen, since = -1, time.monotonic()
    while True:
        with explained(path):
            path.mkdir(exist_ok=True)
            if path.is_symlink():
                raise SourceError(f"{path} is a link; delete it and run the same command again.")
            try:
                handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except FileNotFoundError:  # another process has just finished and deleted the folder
                continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_in_place(handle, path / LOCK):
                os.ftruncate(handle, 0)
                write_all(handle, f"{os.getpid()}\n".encode())
                return handle
            os.close(handle)
            continue
        except BlockingIOError:
            beat = os.fstat(handle).st_mtime_ns
            pid = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
        except OSError as error:
            os.close(handle)
            if error.errno in NO_LOCKS:
                return None
            with explained(path):
                raise
        if beat != seen:
            seen, since = beat, time.monotonic()
        elif time.monotonic() - since > STANDSTILL:
            raise SourceError(
                f"Another process (pid {pid}) fetches {title or path} and has stood still for "
                f"{STANDSTILL / 60:.0f} minutes. Stop it and run the same command again; what it "
                f"fetched so far is kept."
            )
        if report:
            report(f"waiting for process {pid}, which fetches {title or path}", 0, 0)
        time.sleep(POLL)


def _is_in_place(handle: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def _beating(handle: int, report: Report | None) -> Callable[[str, int, int], None]:
    last = time.monotonic()

    def beat(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > BEAT:
            last = time.monotonic()
            os.utime(handle)
        if report:
            report(what, done, total)

    return beat
