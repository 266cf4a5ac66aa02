"""One writer at a time: an advisory lock on the folder of a cache, or on a file of the user.

Readers never wait.
"""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featcache.errors import CacheError
from featcache.paths import open_descriptor
from featcache.store.format.files import (
    FULL,
    explained,
    is_temporary,
    read_limited,
    write_all,
)
from featcache.store.settle import LOCK, settle

OWNER = ".lock-owner"
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
"""Errors of file systems without locks (some NFS and Lustre mounts)."""

OWNER_BYTES = 1 << 12
"""Most bytes read of the file that names the writer."""

PATIENCE = 0.05
"""Seconds to wait for the lock; `is_locked` of another process holds it for much less."""


@contextmanager
def writer_lock(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Lock a cache for writing while the block runs.

    The kernel releases the lock when the process ends in any way. On file systems without locks, a
    file that only one process can create is used instead. Data that a killed writer had not synced
    is synced first.

    Args:
        folder: Folder of the cache.
        say: Called with a message if the file system has no locks.

    Raises:
        CacheError: If another process is writing, or the folder cannot be written.
    """
    path = folder / LOCK
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise CacheError(
            f"{path} is no plain file, so nothing can be locked by it. Delete it and run the same "
            f"command again."
        )
    with explained(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        exclusive = _flock(handle, path, folder)
        if not exclusive:
            say(f"The file system of {folder} has no locks; {OWNER} guards the cache instead.")
            _create_owner(folder)
        try:
            _check_in_place(handle, path)
            with explained(path):
                settle(folder)
                _sign(handle)
            yield
            with suppress(OSError):  # after an error the pid stays: data may be unsynced
                os.ftruncate(handle, 0)
        finally:
            if not exclusive:
                (folder / OWNER).unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def file_lock(target: Path) -> Iterator[None]:
    """Be the only process that writes to a file of the user while the block runs.

    The lock is a file beside it, which the block leaves only if the process is killed; the kernel
    releases the lock then, too, and the next writer goes on and removes what the killed one had not
    finished. Where the file system has no locks nothing is guarded.

    Args:
        target: The file, which need not exist.

    Raises:
        CacheError: If another process is writing to it, or its folder cannot be written.
    """
    path = target.with_name(f".{target.name}.lock")
    handle = _open_in_place(path, target)
    try:
        with explained(path):
            _sign(handle)
            for left in target.parent.iterdir():
                if left.name.startswith(f".{target.name}.tmp-") and is_temporary(left):
                    left.unlink(missing_ok=True)
        yield
    finally:
        try:
            with suppress(OSError):
                path.unlink(missing_ok=True)  # before the lock is released: nobody else holds it
        finally:
            os.close(handle)


def _open_in_place(path: Path, target: Path) -> int:
    """Open a lock file and lock it; again if its owner has removed it meanwhile."""
    while True:
        with explained(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            _flock(handle, path, target)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.lstat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Tell whether any process, including this one, is writing to the cache."""
    if (folder / OWNER).exists():
        return True
    try:
        handle = open_descriptor(folder / LOCK, links=False)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _flock(handle: int, path: Path, target: Path) -> bool:
    """Lock a file; errors name the target that it guards. False where there are no locks."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise _busy(target, _read_pid(path)) from error
            time.sleep(PATIENCE / 10)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            with explained(path):
                raise


def _sign(handle: int) -> None:
    """Write the pid; on a full disk only extend the file by a hole, which takes no space."""
    os.ftruncate(handle, 0)
    try:
        write_all(handle, f"{os.getpid()}\n".encode())
    except OSError as error:
        if error.errno not in FULL:
            raise
        os.ftruncate(handle, 1)


def _check_in_place(handle: int, path: Path) -> None:
    """Refuse the lock if the cache was removed before we got it."""
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), path.lstat()):
            return
    raise CacheError(
        f"Another process has removed {path.parent} meanwhile. Run the same command again."
    )


def _create_owner(folder: Path) -> None:
    path = folder / OWNER
    for _ in range(2):
        with explained(path):
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                if not _is_stale(path):
                    raise _busy(folder, _read_pid(path), path) from None
                path.unlink(missing_ok=True)
                continue
            try:
                write_all(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
            except OSError:
                path.unlink(missing_ok=True)  # without content nobody can tell whose file it is
                raise
            finally:
                os.close(handle)
        return
    raise _busy(folder, _read_pid(path), path)


def _is_stale(path: Path) -> bool:
    """Tell whether the owner was a process of this machine that has ended."""
    try:
        pid, _, host = _read(path).strip().partition(" ")
    except FileNotFoundError:
        return True
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _read(path: Path) -> str:
    return read_limited(path, OWNER_BYTES).decode(errors="replace")


def _read_pid(path: Path) -> str:
    try:
        words = _read(path).split()
    except (OSError, CacheError):
        return "unknown"
    return words[0] if words and words[0].isdigit() else "unknown"


def _busy(target: Path, pid: str, remove: Path | None = None) -> CacheError:
    advice = f" If no such process runs on any machine, delete {remove}." if remove else ""
    return CacheError(
        f"Another process (pid {pid}) is writing to {target}; wait for it to end, or stop it, and "
        f"run the same command again.{advice}"
    )
