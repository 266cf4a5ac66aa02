"""Unpacking archives: only files and folders, only below the target, within the limits.

Modes, owners and times of members are ignored: everything is a plain file of the user's own.
"""

import bz2
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isal import igzip, igzip_threaded

from featcache.errors import FeatcacheError, SourceError
from featcache.paths import open_regular
from featcache.sources.base import Report
from featcache.sources.fetch.archive import kind_of, stem_of
from featcache.sources.fetch.budget import Budget
from featcache.sources.fetch.disk import check_room, explained
from featcache.sources.fetch.names import checked_name
from featcache.sources.fetch.progress import Bytes
from featcache.sources.fetch.refusals import damaged, quoted, unsafe
from featcache.sources.fetch.tar import CHUNK, Member, Stream, members
from featcache.sources.fetch.zipped import zip_members
from featcache.store.format.files import write_all

_gzip: Any = igzip.IGzipFile
_threaded: Any = igzip_threaded.open

_EVERY = 256
"""Members between two reports."""


def unpack(path: Path, target: Path, *, nested: bool = False, report: Report | None = None) -> int:
    """Unpack an archive into an empty folder.

    Args:
        path: A zip or tar file; its suffix says which.
        target: The folder; it exists, and nobody else writes to it.
        nested: Whether the tar files in it are unpacked too, each into a folder of its own name;
            a top folder of that name in it is not repeated.
        report: Told how far it is.

    Returns:
        The number of files.

    Raises:
        SourceError: If it is damaged, unsafe or too large. The target may then hold a part of it.
    """
    size = path.stat().st_size
    job = _Job(path.name, target, nested, report, Budget(path.name, size))
    if kind_of(path.name) == "zip":
        _unpack_zip(job, path)
    else:
        check_room(target, size, f"Unpacking {path.name}")
        with _decompressed(path, kind_of(path.name)) as stream:
            job.unpack_tar(stream, path.name, ())
    if not job.files:
        raise damaged(path.name, "holds no files")
    if report:
        report(job.what, job.files, job.files)
    return job.files


def _unpack_zip(job: "_Job", path: Path) -> None:
    checked = False
    for member, count in zip_members(path, path.name, job.budget):
        if not checked:  # only now is the directory known to be sound
            check_room(job.target, job.budget.bytes, f"Unpacking {path.name}")
            checked = True
        job.add(member, (), path.name, job.nested)
        if job.report and job.files % _EVERY == 0:
            job.report(job.what, job.files, count)


class _Job:
    """Unpacking of one archive."""

    def __init__(
        self, archive: str, target: Path, nested: bool, report: Report | None, budget: Budget
    ) -> None:
        self.target, self.nested, self.report, self.budget = target, nested, report, budget
        self.what = f"unpacking {archive}"
        self.files = 0
        self._root = os.fsencode(target)
        self._folders: set[tuple[str, ...]] = {()}

    def unpack_tar(self, stream: Stream, archive: str, below: tuple[str, ...]) -> None:
        """Unpack a tar file.

        Args:
            stream: Its bytes, decompressed.
            archive: Its name, for errors.
            below: Folder in the target; empty for an outermost archive.
        """
        is_outer = not below
        for member in members(stream, archive, self.budget):
            self.add(member, below, archive, self.nested and is_outer)
            if self.report and is_outer and self.files % _EVERY == 0:
                self.report(self.what, Bytes(self.budget.bytes), Bytes(0))

    def add(self, member: Member, below: tuple[str, ...], archive: str, nested: bool) -> None:
        """Unpack one member."""
        parts = checked_name(member.name, archive)
        if below and parts[:1] == below[-1:]:
            parts = parts[1:]  # x.tar holds x/...: one folder of that name is enough
        parts = below + parts
        if member.is_folder:
            self._folder(parts, archive)
        elif parts == below:
            raise damaged(archive, "has a file without a name")
        elif nested and kind_of(parts[-1]).startswith("tar"):
            inner = _folder_of(parts, archive)
            self._folder(inner, archive)
            data = io.BufferedReader(_Raw(member.data))
            with _inflated(data, kind_of(parts[-1]), parts[-1]) as stream:
                self.unpack_tar(stream, f"{archive}: {parts[-1]}", inner)
        else:
            self._folder(parts[:-1], archive)
            self._write(parts, member, archive)

    def _folder(self, parts: tuple[str, ...], archive: str) -> None:
        if parts in self._folders:
            return
        self._folder(parts[:-1], archive)
        path = self._path(parts)
        with explained(self.target):
            try:
                os.mkdir(path)  # noqa: PTH102  the path is bytes: a name need not be UTF-8
            except FileExistsError:
                if not os.path.isdir(path):  # noqa: PTH112
                    raise _twice(archive, parts) from None
        self._folders.add(parts)

    def _write(self, parts: tuple[str, ...], member: Member, archive: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with explained(self.target):
            try:
                handle = os.open(self._path(parts), flags, 0o666)
            except FileExistsError:
                raise _twice(archive, parts) from None
            try:
                left = member.size
                while data := member.data.read(CHUNK):
                    left -= len(data)
                    if left < 0:
                        break
                    write_all(handle, data)
            finally:
                os.close(handle)
        if left:
            more = "more" if left < 0 else member.size - left
            raise damaged(
                archive,
                f"says that {quoted(member.name)} has {member.size} bytes, and it has {more}",
            )
        self.files += 1

    def _path(self, parts: tuple[str, ...]) -> bytes:
        names = (part.encode("utf-8", "surrogateescape") for part in parts)
        return b"/".join((self._root, *names))


class _Raw(io.RawIOBase):
    """A stream as decompressors take it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _decompressed(path: Path, kind: str) -> Iterator[Stream]:
    with open_regular(path) as file:
        if kind == "tar.gz":  # decompressed in a thread beside the one that writes
            with _named(path.name), _threaded(file, "rb", threads=1) as stream:
                yield stream
        else:
            with _inflated(file, kind, path.name) as stream:
                yield stream


@contextmanager
def _inflated(stream: Any, kind: str, archive: str) -> Iterator[Stream]:
    with _named(archive):
        if kind == "tar.gz":
            with _gzip(fileobj=stream, mode="rb") as inflated:
                yield inflated
        elif kind == "tar.bz2":
            with bz2.open(stream, "rb") as inflated:
                yield inflated
        else:
            yield stream


@contextmanager
def _named(archive: str) -> Iterator[None]:
    """Turn errors of a decompressor into errors that name the archive."""
    try:
        yield
    except (FeatcacheError, MemoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise damaged(archive, f"cannot be decompressed ({said})") from error


def _folder_of(parts: tuple[str, ...], archive: str) -> tuple[str, ...]:
    """Return the folder for the files of a nested archive; `...tar` would name the one above."""
    stem = stem_of(parts[-1])
    if not stem.strip("."):
        raise unsafe(
            archive, f"holds {quoted(parts[-1])}, whose name gives no folder for its files"
        )
    return checked_name("/".join((*parts[:-1], stem)), archive)


def _twice(archive: str, parts: tuple[str, ...]) -> SourceError:
    return unsafe(
        archive,
        f"holds {quoted('/'.join(parts))} twice, or two names that are one on this file system "
        f"(capitals), or a file where a folder belongs",
    )
