"""Writing files so that a reader sees the old bytes or the new ones, never a mixture."""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featcache.errors import CacheError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into a sentence.

    Raises:
        CacheError: For every OSError of the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise CacheError(
                f"No space is left to write {path} ({error.strerror}); everything finished before "
                f"is kept. Free some space and run the same command again."
            ) from error
        if error.errno in REFUSED:
            raise CacheError(
                f"{path} cannot be written ({error.strerror}). "
                f"Make it writable, or choose another folder with --cache."
            ) from error
        raise CacheError(
            f"Writing {path} failed: {error.strerror or error}. Everything finished before is "
            f"kept; the same command goes on from there."
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in place in one step that survives a power cut.

    Raises:
        CacheError: If the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    with explained(path):
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                write_all(handle, data)
                os.fsync(handle)
            finally:
                os.close(handle)
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def cure_for(error: OSError, otherwise: str) -> str:
    """Say what helps when a file cannot be read: what is only forbidden is not lost."""
    return "Make it readable and try again." if error.errno in REFUSED else otherwise


def write_all(handle: int, data: bytes) -> None:
    """Write every byte, however many calls the kernel needs."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a power cut, where the file system can do that."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Network file systems may have no fsync for folders; the rename itself is still atomic.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        CacheError: If that is not allowed, or a file is in the way.
    """
    with explained(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            file = next((p for p in (path, *path.parents) if p.is_file()), path)
            raise CacheError(
                f"{path} cannot be made: {file} is a file, not a folder. "
                f"Choose another folder with --cache."
            ) from error


def canonical(value: object) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, finite numbers."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def is_temporary(path: Path) -> bool:
    """Tell whether a file is what an interrupted writer of ours left behind."""
    return path.name.startswith(".") and ".tmp-" in path.name
