"""Tar archives without compression: one pass over their headers, and files at an offset.

What stands before the bytes of a file is compared once more when it is read; a tar archive has no
checksum of the bytes themselves.
"""

import os
import zlib

from featcache.paths import pread
from featcache.sources.headers.errors import DamagedError, UnsafeError
from featcache.sources.headers.tar import BLOCK, LABEL, EndError, next_entry, padded
from featcache.sources.trees.members import Archive, Member, Names

_CUT = "Get a whole copy of it."


class TarMember(Member):
    """A file in a tar archive."""

    __slots__ = ("_header", "_offset")

    def __init__(self, archive: Archive, within: str, size: int, offset: int, header: int) -> None:
        """Keep what the header says.

        Args:
            archive: Which holds it.
            within: Its path there.
            size: Its bytes.
            offset: Where its header begins.
            header: crc32 of that header.
        """
        super().__init__(archive, within, size)
        self._offset, self._header = offset, header

    def _read(self, handle: int) -> bytes:
        if zlib.crc32(pread(handle, self._offset, BLOCK)) != self._header:
            raise self._damaged("the archive has changed since it was opened")
        return self._pread(handle, self._offset + BLOCK, self._size)


def read_tar(archive: Archive) -> Names:
    """Read and check every header.

    Raises:
        SourceError: If it is damaged, or the archive holds what is refused.
        OSError: If it cannot be read.
    """
    try:
        return _read(archive)
    except DamagedError as error:
        raise archive.refused(str(error), _CUT) from error
    except UnsafeError as error:
        raise archive.refused(str(error)) from error


def _read(archive: Archive) -> Names:
    names = Names(archive)
    with archive.opened() as handle:
        cursor = _Cursor(handle)
        try:
            while cursor.take(names, archive):
                pass
        except EndError as error:
            if not (error.is_clean and cursor.at):  # some writers leave the mark of the end out
                raise
    names.check_folders()
    return names


class _Cursor:
    """A place in an archive, which moves on with every header."""

    __slots__ = ("_handle", "_length", "at")

    def __init__(self, handle: int) -> None:
        self._handle, self._length, self.at = handle, os.fstat(handle).st_size, 0

    def read(self, size: int) -> bytes:
        data = pread(self._handle, self.at, size)
        self.at += len(data)
        return data

    def take(self, names: Names, archive: Archive) -> bool:
        """Enter the next member and step over its bytes; False at the end."""
        entry = next_entry(self.read)
        if entry is None:
            return False
        path = names.check(entry.name)
        if entry.refused:
            raise UnsafeError(f"holds {entry.refused} ({path[:200]!a})")
        if entry.is_folder:
            names.add_folder(path)
        elif entry.kind != LABEL:
            header = self.at - BLOCK
            crc = zlib.crc32(entry.header)
            names.add_file(path, TarMember(archive, path, entry.size, header, crc))
        if self.at + entry.size > self._length:
            raise DamagedError("is cut off")
        self.at += padded(entry.size)
        return True
