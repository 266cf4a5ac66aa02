"""Zip archives: their central directory, and files at an offset, stored or deflated.

The central directory is found once, checked as a whole, and kept. A file is read only if what
stands before its bytes agrees with the directory, it has exactly the bytes that were declared, and
their checksum is right. No two files may share bytes, so an archive cannot unpack to more than
`RATIO` times its size for its larger files.

Reference: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from featcache.limits import MEMBERS
from featcache.sources.trees.members import Archive, Member, Names, pread

RATIO, FREE = 200, 16 << 20
"""How many times its packed size a file may have that is larger than so many bytes."""

_ENTRY_BYTES = 128
"""Bytes of the central directory for each file that an archive may have."""

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_SLACK = 1024
"""Bytes that deflating may add to a file, beside as many as it has."""
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LATER, _UTF8 = 0x8, 0x800
"""Flags: sizes and checksum stand behind the bytes; the name is UTF-8."""
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
"""Values that say: the number stands elsewhere."""
_UNIX = (3, 19)
"""Systems whose entries tell what kind of file they are."""


class ZipMember(Member):
    """A file in a zip archive."""

    __slots__ = ("_crc", "_method", "_name", "_offset", "_packed")

    def __init__(self, archive: Archive, within: str, entry: "_Entry") -> None:
        """Keep what the central directory says."""
        super().__init__(archive, within, entry.size)
        self._name, self._method, self._crc = entry.name, entry.method, entry.crc
        self._packed, self._offset = entry.packed, entry.offset

    def size(self) -> int:
        """Return the bytes that reading takes: packed and unpacked."""
        return self._size + (self._packed if self._method == _DEFLATED else 0)

    def _read(self, handle: int) -> bytes:
        if self._size > FREE and self._size > RATIO * self._packed:
            raise self._damaged(
                f"it would unpack to more than {RATIO} times its {self._packed} bytes"
            )
        data = self._pread(handle, self._start(handle), self._packed)
        if self._method == _DEFLATED:
            data = self._inflated(data)
        if zlib.crc32(data) != self._crc:
            raise self._damaged("its checksum is another")
        return data

    def _start(self, handle: int) -> int:
        """Return the offset of the packed bytes, after checking the local header."""
        head = self._pread(handle, self._offset, _LOCAL.size + len(self._name))
        signature, _, flags, method, _, _, *numbers, name, extra = _LOCAL.unpack_from(head)
        agrees = (
            signature == b"PK\3\4"
            and not flags & _ENCRYPTED
            and method == self._method
            and name == len(self._name)
            and head[_LOCAL.size :] == self._name
        )
        if agrees and not flags & _LATER:
            said = (self._crc, self._packed, self._size)
            agrees = all(n in (own, _FULL32) for n, own in zip(numbers, said, strict=True))
        if not agrees:
            raise self._damaged("the archive's directory says something else of it")
        return self._offset + _LOCAL.size + int(name) + int(extra)

    def _inflated(self, data: bytes) -> bytes:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            unpacked = stream.decompress(data, self._size + 1)
        except zlib.error as error:
            raise self._damaged(str(error)) from error
        if len(unpacked) != self._size or not stream.eof:
            raise self._damaged(f"it does not unpack to the {self._size} bytes that it should have")
        return unpacked


@dataclass(slots=True)
class _Entry:
    """An entry of the central directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    """Kind of file and permissions as Unix has them; 0 where nothing is said."""
    system: int


def read_zip(archive: Archive) -> Names:
    """Read and check the central directory.

    Raises:
        SourceError: If it is damaged, or the archive holds what is refused.
        OSError: If it cannot be read.
    """
    with archive.opened() as handle:
        start, size, count = _directory(archive, handle)
        if size > _ENTRY_BYTES * MEMBERS.value():
            raise archive.refused(
                f"has a directory of {size} bytes, more than the limit",
                f"{MEMBERS.variable} raises it.",
            )
        directory = pread(handle, start, size)
    names = Names(archive)
    spans: list[tuple[int, int]] = []
    found = 0
    for entry in _entries(archive, directory):
        found += 1
        path = names.check(_text(entry))
        _check(archive, entry, path)
        if entry.name.endswith(b"/"):
            names.add_folder(path)
        else:
            names.add_file(path, ZipMember(archive, path, entry))
        spans.append((entry.offset, entry.offset + _LOCAL.size + len(entry.name) + entry.packed))
    if found != count:
        raise archive.refused(f"has {found} entries in its directory and says that it has {count}")
    _check_spans(archive, spans, start)
    names.check_folders()
    return names


def _directory(archive: Archive, handle: int) -> tuple[int, int, int]:
    """Return offset, bytes and entries of the central directory."""
    length = os.fstat(handle).st_size
    tail_at = max(0, length - _END.size - _FULL16)
    tail = pread(handle, tail_at, length - tail_at)
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if at + _END.size <= len(tail):
            end = _END.unpack_from(tail, at)
            if at + _END.size + end[7] == len(tail):
                break
        at = tail.rfind(b"PK\5\6", 0, at + 3)
    else:
        raise archive.refused(
            "has no end of a zip archive: it is cut off, or is none", "Get a whole copy of it."
        )
    _, disk, first_disk, here, count, size, start, _ = end
    before = tail_at + at
    if _FULL16 in (disk, here, count) or _FULL32 in (size, start):
        before, disk, first_disk, here, count, size, start = _directory64(archive, handle, before)
    if disk or first_disk or here != count:
        raise archive.refused("is one part of several", "Join the parts first.")
    if start + size != before:
        raise archive.refused("has a directory that is not where it says", "Get a whole copy.")
    return start, size, count


def _directory64(
    archive: Archive, handle: int, end: int
) -> tuple[int, int, int, int, int, int, int]:
    where = end - _END64_LOCATOR.size
    locator = pread(handle, max(0, where), _END64_LOCATOR.size)
    if where >= 0 and locator[:4] == b"PK\6\7":
        at = _END64_LOCATOR.unpack(locator)[2]
        record = pread(handle, at, _END64.size) if at + _END64.size <= where else b""
        if record[:4] == b"PK\6\6":
            _, rest, _, _, disk, first_disk, here, count, size, start = _END64.unpack(record)
            if at + 12 + rest == where:
                return at, disk, first_disk, here, count, size, start
    raise archive.refused("has a damaged end", "Get a whole copy of it.")


def _entries(archive: Archive, directory: bytes) -> Iterator[_Entry]:
    at, stop = 0, len(directory)
    unpack, size = _CENTRAL.unpack_from, _CENTRAL.size
    while at < stop:
        if at + size > stop or directory[at : at + 4] != b"PK\1\2":
            raise archive.refused("has a damaged directory", "Get a whole copy of it.")
        (
            _, made, _, flags, method, _, _, crc, packed, unpacked,
            n_name, n_extra, n_comment, disk, _, outer, offset,
        ) = unpack(directory, at)  # fmt: skip
        name_at = at + size
        extra_at = name_at + n_name
        at = extra_at + n_extra + n_comment
        if at > stop:
            raise archive.refused("has a damaged directory", "Get a whole copy of it.")
        entry = _Entry(
            directory[name_at:extra_at], flags, method, crc, packed, unpacked, offset,
            outer >> 16, made >> 8,
        )  # fmt: skip
        if _FULL32 in (packed, unpacked, offset) or disk:
            _widen(archive, entry, directory[extra_at : extra_at + n_extra], disk)
        yield entry


def _widen(archive: Archive, entry: _Entry, extra: bytes, disk: int) -> None:
    """Replace numbers that did not fit into 32 bits by those of the zip64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        numbers = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind != 1:
            continue
        for field in ("size", "packed", "offset"):
            if getattr(entry, field) == _FULL32 and len(numbers) >= 8:
                setattr(entry, field, int.from_bytes(numbers[:8], "little"))
                numbers = numbers[8:]
        if disk == _FULL16 and len(numbers) >= 4:
            disk = int.from_bytes(numbers[:4], "little")
        break
    if disk:
        raise archive.refused("is one part of several", "Join the parts first.")


def _text(entry: _Entry) -> str:
    """Decode a name: UTF-8 where it says so or was written on Unix, else the DOS code page."""
    if entry.name.isascii():
        return entry.name.decode("ascii")
    if entry.flags & _UTF8 or entry.system in _UNIX:
        return entry.name.decode("utf-8", "surrogateescape")
    return entry.name.decode("cp437")


def _check(archive: Archive, entry: _Entry, path: str) -> None:
    if entry.flags & _ENCRYPTED:
        raise archive.refused(f"is encrypted ({path[:200]!a})")
    kind = stat.S_IFMT(entry.mode) if entry.system in _UNIX else 0
    if kind == stat.S_IFLNK:
        raise archive.refused(f"holds a link ({path[:200]!a})")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise archive.refused(f"holds a pipe or device ({path[:200]!a})")
    if entry.method not in (_STORED, _DEFLATED):
        raise archive.refused(
            f"packs {path[:200]!a} by method {entry.method}; only stored (0) and deflated (8) "
            f"files are read in place"
        )
    if entry.packed > 2 * entry.size + _SLACK or (
        entry.method == _STORED and entry.packed != entry.size
    ):
        raise archive.refused(
            f"says that {path[:200]!a} has {entry.size} bytes and takes {entry.packed}"
        )


def _check_spans(archive: Archive, spans: list[tuple[int, int]], directory: int) -> None:
    """Refuse files that share bytes: an archive of them unpacks to any size."""
    spans.sort()
    end = 0
    for start, stop in spans:
        if start < end:
            raise archive.refused("has files that lie over each other")
        end = stop
    if end > directory:
        raise archive.refused("has files that lie over its directory", "Get a whole copy of it.")
