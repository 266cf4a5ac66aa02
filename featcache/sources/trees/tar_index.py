"""Tar archives without compression: one pass over their headers, and files at an offset.

Read are the old, the POSIX (ustar, pax) and the GNU form, with names and sizes of any length. What
stands before the bytes of a file is compared once more when it is read; a tar archive has no
checksum of the bytes themselves.

Reference: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Basic Tar Format".
"""

import os
import zlib
from collections.abc import Mapping

from featcache.sources.trees.members import LONGEST_PATH, Archive, Member, Names, pread

BLOCK = 512
MOST_HEADER = 1 << 20
"""Bytes of a pax header or a long name."""

_FILES = (b"0", b"\0", b"7")
_REFUSED = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "a part of a file that began in another archive",
    b"D": "a list of an incremental backup",
}
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
    names = Names(archive)
    with archive.opened() as handle:
        length = os.fstat(handle).st_size
        at, extended, long_name = 0, {}, ""
        while True:
            header = pread(handle, at, BLOCK)
            if len(header) < BLOCK:
                if at and not header:  # some writers leave the two empty blocks out
                    break
                raise archive.refused("is cut off", _CUT)
            if not any(header):
                break
            kind, size = _checked(archive, header, at), _number(archive, header[124:136])
            if kind in (b"x", b"X", b"g", b"L", b"K"):
                body = _body(archive, handle, at, size)
                if kind == b"L":
                    long_name = _decoded(body.rstrip(b"\0"))
                elif kind != b"K":
                    found = _pax(archive, body)
                    extended = _for_all(archive, found) if kind == b"g" else found
                at += BLOCK + _padded(size)
                continue
            name = extended.get("path") or long_name or _name(header)
            if "size" in extended:
                size = _pax_size(archive, extended["size"])
            if any(key.startswith("GNU.sparse.") for key in extended):
                kind = b"S"
            path = names.check(name)
            if kind == b"5" or (kind in _FILES and name.endswith("/")):
                names.add_folder(path)
                size = 0 if kind == b"5" else size
            elif kind in _FILES:
                member = TarMember(archive, path, size, at, zlib.crc32(header))
                names.add_file(path, member)
            elif kind != b"V":  # the label of a volume
                what = _REFUSED.get(kind, f"an entry of unknown kind {kind!a}")
                raise archive.refused(f"holds {what} ({path[:200]!a})")
            if at + BLOCK + size > length:
                raise archive.refused("is cut off", _CUT)
            at += BLOCK + _padded(size)
            extended, long_name = {}, ""
    names.check_folders()
    return names


def is_tar(start: bytes) -> bool:
    """Tell whether a file that begins so is a tar archive."""
    return len(start) >= BLOCK and any(start[:BLOCK]) and _sum(start[:BLOCK]) == _said_sum(start)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _checked(archive: Archive, header: bytes, at: int) -> bytes:
    """Return the kind of an entry whose header has the right sum."""
    if _sum(header) != _said_sum(header):
        raise archive.refused(f"has a damaged header at byte {at}", _CUT)
    return header[156:157]


def _sum(header: bytes) -> int:
    return sum(header[:148]) + 8 * 0x20 + sum(header[156:BLOCK])


def _said_sum(header: bytes) -> int:
    digits = header[148:156].strip(b" \0")
    return int(digits, 8) if digits and all(0x30 <= d < 0x38 for d in digits) else -1


def _number(archive: Archive, text: bytes) -> int:
    """Read a size: octal digits, or, with the first bit set, a number in base 256."""
    if text[0] == 0x80:
        return int.from_bytes(text[1:], "big")
    digits = text.strip(b" \0")
    if not digits:
        return 0
    if not all(0x30 <= d < 0x38 for d in digits):
        raise archive.refused("has a header with a size that is no number", _CUT)
    return int(digits, 8)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    return _decoded(name)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _body(archive: Archive, handle: int, at: int, size: int) -> bytes:
    if size > MOST_HEADER:
        raise archive.refused(f"has a header of {size} bytes; {LONGEST_PATH} would hold any name")
    body = pread(handle, at + BLOCK, size)
    if len(body) < size:
        raise archive.refused("is cut off", _CUT)
    return body


def _pax(archive: Archive, body: bytes) -> dict[str, str]:
    """Read records: length, key and value of each, on a line."""
    records, at = {}, 0
    while at < len(body) and body[at] != 0:
        space = body.find(b" ", at, at + 20)
        digits = body[at:space] if space > at else b""
        length = int(digits) if digits.isdigit() else 0
        record = body[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if at + length > len(body) or not record.endswith(b"\n") or not equals:
            raise archive.refused("has a damaged pax header", _CUT)
        records[_decoded(key)] = _decoded(value[:-1])
        at += length
    return records


def _for_all(archive: Archive, records: Mapping[str, str]) -> dict[str, str]:
    """Refuse a global header that would rename every file; anything else in it says nothing."""
    if "path" in records or "size" in records:
        raise archive.refused("gives all of its files one name or size")
    return {}


def _pax_size(archive: Archive, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise archive.refused("has a pax header with a size that is no number", _CUT)
    return int(text)
