"""Zip archives: their central directory, and files at an offset, stored or deflated.

The central directory is found once, checked as a whole, and kept. A file is read only if what
stands before its bytes agrees with the directory, it has exactly the bytes that were declared, and
their checksum is right. No two files may share bytes, so an archive cannot unpack to more than
`RATIO` times its size for its larger files.
"""

import zlib

from featcache.sources.headers.errors import DamagedError, UnsafeError
from featcache.sources.headers.zip import DEFLATED, Entry, read_entries, start_of
from featcache.sources.trees.members import Archive, Member, Names

RATIO, FREE = 200, 16 << 20
"""How many times its packed size a file may have that is larger than so many bytes."""


class ZipMember(Member):
    """A file in a zip archive."""

    __slots__ = ("_entry",)

    def __init__(self, archive: Archive, within: str, entry: Entry) -> None:
        """Keep what the central directory says."""
        super().__init__(archive, within, entry.size)
        self._entry = entry

    def size(self) -> int:
        """Return the bytes that reading takes: packed and unpacked."""
        return self._size + (self._entry.packed if self._entry.method == DEFLATED else 0)

    def _read(self, handle: int) -> bytes:
        entry = self._entry
        if self._size > FREE and self._size > RATIO * entry.packed:
            raise self._damaged(
                f"it would unpack to more than {RATIO} times its {entry.packed} bytes"
            )
        try:
            start = start_of(handle, entry)
        except DamagedError as error:
            raise self._damaged(f"the archive {error}") from error
        data = self._pread(handle, start, entry.packed)
        if entry.method == DEFLATED:
            data = self._inflated(data)
        if zlib.crc32(data) != entry.crc:
            raise self._damaged("its checksum is another")
        return data

    def _inflated(self, data: bytes) -> bytes:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            unpacked = stream.decompress(data, self._size + 1)
        except zlib.error as error:
            raise self._damaged(str(error)) from error
        if len(unpacked) != self._size or not stream.eof:
            raise self._damaged(f"it does not unpack to the {self._size} bytes that it should have")
        return unpacked


def read_zip(archive: Archive) -> Names:
    """Read and check the central directory.

    Raises:
        SourceError: If it is damaged, or the archive holds what is refused.
        OSError: If it cannot be read.
    """
    names = Names(archive)
    try:
        with archive.opened() as handle:
            for entry in read_entries(handle):
                path = names.check(entry.name)
                if entry.is_folder:
                    names.add_folder(path)
                else:
                    names.add_file(path, ZipMember(archive, path, entry))
    except DamagedError as error:
        raise archive.refused(str(error), "Get a whole copy of it.") from error
    except UnsafeError as error:
        raise archive.refused(str(error)) from error
    names.check_folders()
    return names
