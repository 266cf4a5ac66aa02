"""Writing files so that a reader sees the old bytes or the new ones, never a mixture."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    LinkInCacheError,
    UnreadableCacheError,
)
from featcache.limits import METADATA
from featcache.paths import open_descriptor
from featcache.scarcity import lacking
from featcache.wording import Argument, Part

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What says that something else than our file is in its place; other errors say nothing of it."""


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
                "Make it writable, or choose another folder with ",
                Argument("root"),
                ".",
            ) from error
        if lack := lacking(error):
            raise CacheError(f"{path} could not be written. {lack}") from error
        raise CacheError(
            f"Writing {path} failed: {error.strerror or error}. Everything finished before is "
            f"kept; the same command goes on from there."
        ) from error


def is_full(error: CacheError) -> bool:
    """Tell whether an error that `explained` raised is about a full disk."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL


def write_atomically(path: Path, *parts: bytes) -> None:
    """Put a file in place in one step that survives a power cut.

    Args:
        path: The file; a symbolic link there is replaced, not followed.
        parts: What it shall hold, one after the other.

    Raises:
        CacheError: If the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    with explained(path):
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                for part in parts:
                    write_all(handle, part)
                os.fsync(handle)
            finally:
                os.close(handle)
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def open_plain(path: Path) -> int:
    """Open a plain file for reading and return its descriptor.

    A cache may come from a stranger: a link could lead out of its folder, a pipe would block.

    Raises:
        CorruptCacheError: If it is a symbolic link, or no plain file.
        UnreadableCacheError: If this process lacks files or memory, which is no fault of the file.
        OSError: If it is missing or may not be read.
    """
    refuse_link(path)
    try:
        return open_descriptor(path, links=False)
    except OSError as error:
        if lacking(error):
            raise unreadable(path, error, "") from error
        if error.errno != errno.EINVAL:
            raise
        raise CorruptCacheError(
            f"{path} is no plain file. Move it away and run `featcache repair`."
        ) from error


def read_limited(path: Path, limit: int | None = None) -> bytes:
    """Read a plain file whole, unless it is suspiciously large.

    Args:
        path: The file.
        limit: Bytes it may have; None is 4 GiB, or what FEATCACHE_MAX_METADATA says.

    Raises:
        CorruptCacheError: If it is a symbolic link, or no plain file.
        CacheError: If it is larger than the limit.
        UsageError: If the variable is no number.
        OSError: If it is missing or may not be read.
    """
    most = METADATA.value() if limit is None else limit
    with os.fdopen(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            advice = f" or set {METADATA.variable} to more bytes" if limit is None else ""
            raise CacheError(
                f"{path} has {size} bytes, more than the {most} that are read at most. "
                f"Remove this cache with `featcache rm`{advice}."
            )
        return file.read(size)


def refuse_link(path: Path) -> None:
    """Refuse a file or folder of a cache that is a symbolic link.

    Raises:
        LinkInCacheError: If it is one.
    """
    if path.is_symlink():
        raise LinkInCacheError(
            f"{path} is a symbolic link; what belongs to a cache must lie in its folder. "
            f"Put what it points to in its place."
        )


def cure_for(error: OSError, otherwise: str) -> str:
    """Say what helps when a file cannot be read: what is only forbidden is not lost."""
    return "Make it readable and try again." if error.errno in REFUSED else otherwise


def unreadable(path: Path, error: OSError, cure: Part) -> CacheError:
    """Compose the error for a file that the system does not hand out.

    Args:
        path: The file.
        error: What the system said.
        cure: What helps where the file is gone.
    """
    if error.errno in GONE:
        return CorruptCacheError(f"{path} cannot be read ({error.strerror}). ", cure)
    if lack := lacking(error):
        return UnreadableCacheError(f"{path} could not be read. {lack}")
    return UnreadableCacheError(
        f"{path} could not be read ({error.strerror or error}), which does not mean that it is "
        f"damaged. Make it readable, or see to the disk, and try again."
    )


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


def sync_file(path: Path) -> None:
    """Make what somebody else wrote to a file survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_names(path: Path) -> None:
    """Make a folder and those it lies in survive a power cut, whoever made them."""
    for parent in path.absolute().parents:
        with suppress(PermissionError):  # a folder that one may write to and not list
            sync_folder(parent)
        if parent.is_mount():
            return


def clear_folder(path: Path) -> None:
    """Remove a folder that stands where a file belongs; files and links get replaced anyway.

    Raises:
        CacheError: If the disk refuses.
    """
    if path.is_dir() and not path.is_symlink():
        with explained(path):
            shutil.rmtree(path)


def delete_folder(path: Path) -> None:
    """Delete a folder and everything in it, though another process may be at the same."""
    while path.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def make_folder(path: Path) -> None:
    """Create a folder and its parents; what was made survives a power cut.

    Raises:
        CacheError: If that is not allowed, or a file is in the way.
    """
    with explained(path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            for made in reversed(missing):
                with suppress(PermissionError):  # a folder that one may write to and not list
                    sync_folder(made.parent)
        except (FileExistsError, NotADirectoryError) as error:
            file = next((p for p in (path, *path.parents) if p.is_file()), path)
            raise CacheError(
                f"{path} cannot be made: {file} is a file, not a folder. "
                "Choose another folder with ",
                Argument("root"),
                ".",
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
