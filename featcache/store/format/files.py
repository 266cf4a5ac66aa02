"""Atomic, durable file writes, and safe reads of files in a cache."""

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
"""Errors that mean that the file is missing; after other errors it may exist and be sound."""
TEMPORARY = ".tmp-"
"""Separates a name from the unique suffix that makes it that of a temporary file or folder."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert errors of writing into messages for the user.

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
    """Write a file atomically and durably.

    Args:
        path: File to write; a symbolic link is replaced, not followed.
        parts: Content, to be concatenated.

    Raises:
        CacheError: If the disk is full or the folder cannot be written.
    """
    temporary = temporary_beside(path)
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

    A cache may be untrusted: a link could lead out of its folder, a pipe would block.

    Raises:
        CorruptCacheError: If it is a symbolic link, or not a plain file.
        UnreadableCacheError: If this process lacks file descriptors or memory.
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
    """Read a whole plain file of bounded size.

    Args:
        path: File to read.
        limit: Most bytes; None for FEATCACHE_MAX_METADATA, 4 GiB by default.

    Raises:
        CorruptCacheError: If it is a symbolic link, or not a plain file.
        CacheError: If it is larger than the limit.
        UsageError: If the environment variable is not a number.
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
    """Return advice for an unreadable file: a lack of permission is not damage."""
    return "Make it readable and try again." if error.errno in REFUSED else otherwise


def unreadable(path: Path, error: OSError, cure: Part) -> CacheError:
    """Compose the error for a file that could not be read.

    Args:
        path: The file.
        error: Error of the operating system.
        cure: Advice if the file is missing.
    """
    if error.errno in GONE:
        return CorruptCacheError(f"{path} cannot be read ({error.strerror}). ", cure)
    if lack := lacking(error):
        return UnreadableCacheError(f"{path} could not be read. {lack}")
    return UnreadableCacheError(
        f"{path} could not be read ({error.strerror or error}), which does not mean that it is "
        f"damaged. Make it readable, or see to the disk, and try again."
    )


def write_all(handle: int, data: bytes | memoryview) -> None:
    """Write all bytes, in as many system calls as needed."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable, if the file system supports it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync folders; the rename is atomic anyway.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the content of a file durable that another process wrote."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_names(path: Path) -> None:
    """Make the names of a folder and of its parents durable, whoever created them."""
    for parent in path.absolute().parents:
        with suppress(PermissionError):  # writable but not readable
            sync_folder(parent)
        if parent.is_mount():
            return


def clear_folder(path: Path) -> None:
    """Remove a folder in the place of a file; files and links are replaced on writing.

    Raises:
        CacheError: If removing fails.
    """
    if path.is_dir() and not path.is_symlink():
        with explained(path):
            shutil.rmtree(path)


def delete_folder(path: Path) -> None:
    """Delete a folder with its content, even if another process does the same."""
    while path.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def make_folder(path: Path) -> None:
    """Create a folder and its parents durably.

    Raises:
        CacheError: If that is not allowed, or a file is in the way.
    """
    with explained(path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            for made in reversed(missing):
                with suppress(PermissionError):  # writable but not readable
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
    """Return the canonical JSON of a value: sorted keys, no spaces, ASCII, finite numbers."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def temporary_beside(path: Path) -> Path:
    """Return a unique temporary path beside a file or folder, which `is_temporary` recognises."""
    return path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")


def is_temporary(path: Path) -> bool:
    """Tell from its name whether a file or folder is a temporary one of this program."""
    return path.name.startswith(".") and TEMPORARY in path.name
