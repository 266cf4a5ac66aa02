"""Members of a zip file whose directory was checked first."""

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from featcache.errors import FeatcacheError
from featcache.paths import open_regular
from featcache.sources.fetch.budget import Budget
from featcache.sources.fetch.refusals import damaged, quoted, unsafe
from featcache.sources.fetch.tar import Member, Stream

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""LZMA may ask for gigabytes of memory, and nobody packs images with it."""
_ENTRY = struct.Struct("<4s24x3H12x")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = 30
_ENCRYPTED = 0x1


def zip_members(path: Path, archive: str, budget: Budget) -> Iterator[tuple[Member, int]]:
    """Read the members of a zip file in the order of its directory.

    Args:
        path: The file.
        archive: Its name, for errors.
        budget: What it may unpack to.

    Yields:
        A member, whose data has to be read before the next, and how many there are in all.

    Raises:
        SourceError: If it is damaged, needs a password, holds links or devices, or is larger than
            the budget.
        OSError: If it cannot be read.
    """
    with open_regular(path) as file, _named(archive):
        _count(file, budget)
        with zipfile.ZipFile(file) as opened:
            found = opened.infolist()
            _check(found, archive, budget)
            for info in found:
                name = info.orig_filename
                with opened.open(info) as data:
                    yield (
                        Member(name, info.file_size, info.is_dir(), _Data(data, archive)),
                        len(found),
                    )
                    if data.read(1):
                        raise zipfile.BadZipFile(f"'{name}' was not read whole")


class _Data:
    """Bytes of one member; errors of zipfile name the archive."""

    def __init__(self, data: Stream, archive: str) -> None:
        self._data, self._archive = data, archive

    def read(self, size: int, /) -> bytes:
        with _named(self._archive):
            return self._data.read(size)


@contextmanager
def _named(archive: str) -> Iterator[None]:
    try:
        yield
    except (FeatcacheError, OSError, MemoryError):
        raise
    except Exception as error:  # zipfile lets through what it trips over
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise damaged(archive, f"cannot be read as a zip file ({said})") from error


def _count(file: BinaryIO, budget: Budget) -> None:
    """Count the entries of the directory without keeping them, as zipfile keeps all."""
    at, size = _directory(file)
    file.seek(at)
    end = at + size
    while at < end:
        header = file.read(_ENTRY.size)
        if len(header) < _ENTRY.size or header[:4] != b"PK\1\2":
            raise zipfile.BadZipFile("its directory is damaged")
        budget.member()
        at += _ENTRY.size + sum(_ENTRY.unpack(header)[1:])
        file.seek(at)
    file.seek(0)


def _directory(file: BinaryIO) -> tuple[int, int]:
    """Return where the directory begins and its bytes."""
    whole = file.seek(0, os.SEEK_END)
    tail_at = max(0, whole - _END.size - (1 << 16))
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("it has no directory, so it is cut short or something else")
    *_, size, _offset, _comment = _END.unpack_from(tail, at)
    end = tail_at + at
    locator = end - _LOCATOR.size
    if locator >= 0:
        file.seek(locator)
        mark, _, place, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if mark == b"PK\6\7":
            end = locator - _END64.size
            file.seek(max(end, 0))
            record = file.read(_END64.size)
            if end != place or len(record) < _END64.size or record[:4] != b"PK\6\6":
                raise zipfile.BadZipFile("its directory is damaged")
            size = _END64.unpack(record)[-2]
    if size > end:
        raise zipfile.BadZipFile("its directory is larger than the file")
    return end - size, size


def _check(found: list[zipfile.ZipInfo], archive: str, budget: Budget) -> None:
    """Check every member before the first is read."""
    end = 0
    for info in sorted(found, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise zipfile.BadZipFile("members overlap, as those of a bomb do")
        end = info.header_offset + _LOCAL + info.compress_size
    for info in found:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.flag_bits & _ENCRYPTED:
            raise unsafe(
                archive,
                "is encrypted: its publisher gives the password to those who accept the terms, as "
                "ObjectNet's does, and no password is asked for here",
            )
        if info.compress_type not in _METHODS:
            number = info.compress_type
            raise unsafe(archive, f"is packed by a method that is not read here (number {number})")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a symbolic link" if kind == stat.S_IFLNK else "a device or a pipe"
            raise unsafe(
                archive,
                f"holds {what} {quoted(info.filename)}, and only files and folders are unpacked",
            )
        budget.take(info.file_size)
