"""The central directory of a zip file, checked as a whole, and the header of each member.

Reference: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from featcache.limits import MEMBERS
from featcache.paths import pread
from featcache.sources.headers.errors import DamagedError, EncryptedError, UnsafeError

STORED, DEFLATED = 0, 8
"""Methods that are read. LZMA may ask for gigabytes of memory, and nobody packs images with it."""

_ENTRY_BYTES = 128
"""Bytes of the central directory for each file that an archive may have."""

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_SLACK = 1024
"""Bytes that deflating may add to a file, beside as many as it has."""
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LATER, _UTF8 = 0x8, 0x800
"""Flags: sizes and checksum stand behind the bytes; the name is UTF-8."""
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
"""Values that say: the number stands elsewhere."""
_UNIX = (3, 19)
"""Systems whose entries tell what kind of file they are."""


@dataclass(slots=True)
class Entry:
    """An entry of the central directory."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    """Kind of file and permissions as Unix has them; 0 where nothing is said."""
    system: int

    @property
    def name(self) -> str:
        """UTF-8 where it says so or was written on Unix, else of the DOS code page; not checked."""
        if self.raw_name.isascii():
            return self.raw_name.decode("ascii")
        if self.flags & _UTF8 or self.system in _UNIX:
            return self.raw_name.decode("utf-8", "surrogateescape")
        return self.raw_name.decode("cp437")

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a folder."""
        return self.raw_name.endswith(b"/")


def read_entries(handle: int) -> Iterator[Entry]:
    """Read and check the central directory of an open file; once all are read, it is sound.

    Args:
        handle: Of a regular file.

    Yields:
        Its entries in their order.

    Raises:
        DamagedError: If it is not whole, or members share bytes: such an archive unpacks to any
            size.
        UnsafeError: If it holds what is not read here.
        OSError: If the system refuses.
    """
    start, size, count = _directory(handle)
    if size > _ENTRY_BYTES * MEMBERS.value():
        raise UnsafeError(
            f"has a directory of {size} bytes, more than the limit; {MEMBERS.variable} raises it"
        )
    directory = pread(handle, start, size)
    spans: list[tuple[int, int]] = []
    for entry in _entries(directory):
        _check(entry)
        spans.append(
            (entry.offset, entry.offset + _LOCAL.size + len(entry.raw_name) + entry.packed)
        )
        yield entry
    if len(spans) != count:
        raise DamagedError(
            f"has {len(spans)} entries in its directory and says that it has {count}"
        )
    _check_spans(spans, start)


def start_of(handle: int, entry: Entry) -> int:
    """Return the offset of a member's packed bytes, after checking the header before them.

    Args:
        handle: Of the file that the entry is of.
        entry: From `read_entries`.

    Raises:
        DamagedError: If the header says something else than the directory.
        OSError: If the system refuses.
    """
    head = pread(handle, entry.offset, _LOCAL.size + len(entry.raw_name))
    if len(head) < _LOCAL.size:
        raise DamagedError("ends within a header")
    signature, _, flags, method, _, _, *numbers, name, extra = _LOCAL.unpack_from(head)
    agrees = (
        signature == b"PK\3\4"
        and not flags & _ENCRYPTED
        and method == entry.method
        and name == len(entry.raw_name)
        and head[_LOCAL.size :] == entry.raw_name
    )
    if agrees and not flags & _LATER:
        said = (entry.crc, entry.packed, entry.size)
        agrees = all(n in (own, _FULL32) for n, own in zip(numbers, said, strict=True))
    if not agrees:
        raise DamagedError("says something else of a file in its directory than in front of it")
    return entry.offset + _LOCAL.size + int(name) + int(extra)


def _directory(handle: int) -> tuple[int, int, int]:
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
        raise DamagedError("has no directory, so it is cut short or something else")
    _, disk, first_disk, here, count, size, start, _ = end
    before = tail_at + at
    if _FULL16 in (disk, here, count) or _FULL32 in (size, start):
        before, disk, first_disk, here, count, size, start = _directory64(handle, before)
    if disk or first_disk or here != count:
        raise UnsafeError("is one part of several, which have to be joined first")
    if start + size != before:
        raise DamagedError("has a directory that is not where it says")
    return start, size, count


def _directory64(handle: int, end: int) -> tuple[int, int, int, int, int, int, int]:
    where = end - _END64_LOCATOR.size
    locator = pread(handle, max(0, where), _END64_LOCATOR.size)
    if where >= 0 and locator[:4] == b"PK\6\7":
        at = _END64_LOCATOR.unpack(locator)[2]
        record = pread(handle, at, _END64.size) if at + _END64.size <= where else b""
        if record[:4] == b"PK\6\6":
            _, rest, _, _, disk, first_disk, here, count, size, start = _END64.unpack(record)
            if at + 12 + rest == where:
                return at, disk, first_disk, here, count, size, start
    raise DamagedError("has a damaged end")


def _entries(directory: bytes) -> Iterator[Entry]:
    at, stop = 0, len(directory)
    unpack, size = _CENTRAL.unpack_from, _CENTRAL.size
    while at < stop:
        if at + size > stop or directory[at : at + 4] != b"PK\1\2":
            raise DamagedError("has a damaged directory")
        (
            _, made, _, flags, method, _, _, crc, packed, unpacked,
            n_name, n_extra, n_comment, disk, _, outer, offset,
        ) = unpack(directory, at)  # fmt: skip
        name_at = at + size
        extra_at = name_at + n_name
        at = extra_at + n_extra + n_comment
        if at > stop:
            raise DamagedError("has a damaged directory")
        entry = Entry(
            directory[name_at:extra_at], flags, method, crc, packed, unpacked, offset,
            outer >> 16, made >> 8,
        )  # fmt: skip
        if _FULL32 in (packed, unpacked, offset) or disk:
            _widen(entry, directory[extra_at : extra_at + n_extra], disk)
        yield entry


def _widen(entry: Entry, extra: bytes, disk: int) -> None:
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
        raise UnsafeError("is one part of several, which have to be joined first")


def _check(entry: Entry) -> None:
    name = f"{entry.name[:200]!a}"
    if entry.flags & _ENCRYPTED:
        raise EncryptedError(f"is encrypted ({name})")
    kind = stat.S_IFMT(entry.mode) if entry.system in _UNIX else 0
    if kind == stat.S_IFLNK:
        raise UnsafeError(f"holds a symbolic link ({name})")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeError(f"holds a device or a pipe ({name})")
    if entry.method not in (STORED, DEFLATED):
        raise UnsafeError(
            f"packs {name} by method {entry.method}; only stored (0) and deflated (8) files are "
            f"read"
        )
    if entry.packed > 2 * entry.size + _SLACK or (
        entry.method == STORED and entry.packed != entry.size
    ):
        raise DamagedError(f"says that {name} has {entry.size} bytes and takes {entry.packed}")


def _check_spans(spans: list[tuple[int, int]], directory: int) -> None:
    """Refuse members that share bytes, with each other or with the directory."""
    spans.sort()
    end = 0
    for start, stop in spans:
        if start < end:
            raise DamagedError("has files that lie over each other, as those of a bomb do")
        end = stop
    if end > directory:
        raise DamagedError("has files that lie over its directory")
