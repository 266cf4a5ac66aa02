"""Members of a zip file whose directory was checked first."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from featcache.errors import SourceError
from featcache.paths import open_regular, pread
from featcache.sources.fetch.budget import Budget
from featcache.sources.fetch.refusals import damaged, quoted, unsafe
from featcache.sources.fetch.tar import CHUNK, Member
from featcache.sources.headers.errors import DamagedError, EncryptedError, UnsafeError
from featcache.sources.headers.zip import DEFLATED, Entry, read_entries, start_of


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
    with open_regular(path) as file:
        handle = file.fileno()
        found = _directory(handle, archive, budget)
        for entry in found:
            data = _Data(handle, entry, archive)
            yield Member(entry.name, entry.size, entry.is_folder, data), len(found)
            data.check_end()


def _directory(handle: int, archive: str, budget: Budget) -> list[Entry]:
    """Check every member before the first is read."""
    found = []
    try:
        for entry in read_entries(handle):
            budget.member()
            budget.take(entry.size)
            found.append(entry)
    except EncryptedError as error:
        raise unsafe(
            archive,
            "is encrypted: its publisher gives the password to those who accept the terms, as "
            "ObjectNet's does, and no password is asked for here",
        ) from error
    except DamagedError as error:
        raise damaged(archive, str(error)) from error
    except UnsafeError as error:
        raise unsafe(archive, str(error)) from error
    return found


class _Data:
    """The bytes of one member, unpacked a piece at a time; never more than were declared."""

    def __init__(self, handle: int, entry: Entry, archive: str) -> None:
        self._handle, self._entry, self._archive = handle, entry, archive
        try:
            self._at = start_of(handle, entry)
        except DamagedError as error:
            raise damaged(archive, str(error)) from error
        self._packed, self._left, self._crc = entry.packed, entry.size, 0
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None

    def read(self, size: int, /) -> bytes:
        data = b""
        while size > 0 and not data and self._left:
            data = self._piece(min(size, self._left))
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        return data

    def check_end(self) -> None:
        """Check that all bytes were read, and that they are those that were packed."""
        inflate = self._inflate
        if self._left or (inflate is not None and (self._piece(1) or not inflate.eof)):
            raise self._wrong(
                f"does not unpack to the {self._entry.size} bytes that it should have"
            )
        if self._crc != self._entry.crc:
            raise self._wrong("has another checksum than its bytes")

    def _piece(self, size: int) -> bytes:
        """Return some of the next bytes; none where more packed ones are needed, or at the end."""
        inflate = self._inflate
        if inflate is None:
            return self._take(size)
        held = inflate.unconsumed_tail or self._take(min(CHUNK, self._packed))
        try:
            data = inflate.decompress(held, size)
        except zlib.error as error:
            raise self._wrong(f"cannot be unpacked ({error})") from error
        if not data and not self._packed and not inflate.unconsumed_tail and self._left:
            raise self._wrong(
                f"does not unpack to the {self._entry.size} bytes that it should have"
            )
        return data

    def _take(self, size: int) -> bytes:
        data = pread(self._handle, self._at, min(size, self._packed))
        if size and self._packed and not data:
            raise self._wrong("ends before its bytes do")
        self._at += len(data)
        self._packed -= len(data)
        return data

    def _wrong(self, what: str) -> SourceError:
        return damaged(self._archive, f"holds {quoted(self._entry.name)}, which {what}")
