"""Headers of tar files in the old, the POSIX (ustar, pax) and the GNU form.

`tarfile` is not used: it reads an extended header whole, whatever its size, and remembers every
member, so a few kilobytes could ask for all of the memory.

Reference: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Basic Tar Format".
"""

from collections.abc import Callable
from typing import NamedTuple

from featcache.sources.headers.errors import DamagedError, UnsafeError

BLOCK = 512
MOST_HEADER = 1 << 20
"""Bytes of one extended header; a path has at most some thousands."""
_MOST_HEADERS = 4 * MOST_HEADER
"""Bytes of all extended headers of one member."""

LINK, SYMBOLIC_LINK, LABEL = b"1", b"2", b"V"
_FILES = (b"0", b"\0", b"7")
_FOLDER = b"5"
_LONG_NAME, _LONG_TARGET, _FOR_ALL = b"L", b"K", b"g"
_EXTENDED = (b"x", b"X", _FOR_ALL, _LONG_NAME, _LONG_TARGET)
_SPARSE = b"S"
_REFUSED = {
    LINK: "a hard link",
    SYMBOLIC_LINK: "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    _SPARSE: "a sparse file",
    b"M": "a part of a file that began in another archive",
    b"D": "a list of an incremental backup",
}


class EndError(DamagedError):
    """The file ends where a header belongs, without the mark of the end."""

    def __init__(self, *, is_clean: bool) -> None:
        """Keep whether the file ends behind a whole member, as some writers end it."""
        super().__init__("ends without the mark that a tar file ends with")
        self.is_clean = is_clean


class Entry(NamedTuple):
    """A member as its headers describe it."""

    name: str
    """As the archive has it; not checked."""
    size: int
    """Bytes behind the header, without padding; 0 or more."""
    is_folder: bool
    kind: bytes
    refused: str
    """What it is if it is neither a file, a folder nor the label of a volume: "a pipe"."""
    target: str
    """Where a link leads, as the archive has it; not checked."""
    extended: int
    """Bytes of its extended headers."""
    header: bytes
    """The block in front of its bytes."""


def next_entry(read: Callable[[int], bytes]) -> Entry | None:
    """Read the headers of one member; its bytes follow, padded to whole blocks.

    Args:
        read: Returns the next so many bytes, fewer only at the end.

    Returns:
        The member, or None at the mark of the end.

    Raises:
        DamagedError: If these are no headers; `EndError` if there are no more bytes.
        UnsafeError: If the headers ask for what is not read here.
    """
    fields: dict[str, str] = {}
    long_name, extended = "", 0
    while True:
        header = read(BLOCK)
        if len(header) < BLOCK:
            raise EndError(is_clean=not header and not extended)
        if not any(header):
            return None
        if not _has_its_sum(header):
            raise DamagedError("has something else where a header belongs")
        kind, size = header[156:157], _number(header[124:136])
        if kind not in _EXTENDED:
            break
        body = _body(read, size)
        extended += BLOCK + size
        if extended > _MOST_HEADERS:
            raise DamagedError(f"has more than {_MOST_HEADERS} bytes of headers for one file")
        if kind == _LONG_NAME:
            long_name = _decoded(body.split(b"\0", 1)[0])
        elif kind == _FOR_ALL:
            _check_for_all(_pax(body))
        elif kind != _LONG_TARGET:
            fields = _pax(body)
    name = fields.get("path") or long_name or _name(header)
    if "size" in fields:
        size = _pax_size(fields["size"])
    if _is_sparse(fields):
        kind = _SPARSE
    if kind == _FOLDER:
        size = 0  # whatever it says, nothing follows
    if size < 0:
        raise DamagedError(f"says that {name[:200]!a} has {size} bytes")
    is_file, is_folder = kind in _FILES, kind == _FOLDER
    refused = ""
    if not is_file and not is_folder and kind != LABEL:
        refused = _REFUSED.get(kind, f"a member of an unknown kind ({kind!a})")
    return Entry(
        name=name,
        size=size,
        is_folder=is_folder or (is_file and name.endswith("/")),
        kind=kind,
        refused=refused,
        target=_decoded(header[157:257].split(b"\0", 1)[0]) if refused else "",
        extended=extended,
        header=header,
    )


def is_tar(start: bytes) -> bool:
    """Tell whether a file that begins so is a tar archive."""
    return len(start) >= BLOCK and any(start[:BLOCK]) and _has_its_sum(start[:BLOCK])


def padded(size: int) -> int:
    """Return the bytes that so many take, in whole blocks.

    Example:
        >>> padded(0), padded(1), padded(512)
        (0, 512, 512)
    """
    return -(-size // BLOCK) * BLOCK


def _has_its_sum(header: bytes) -> bool:
    digits = header[148:156].strip(b" \0")
    if not digits or not all(0x30 <= d < 0x38 for d in digits):
        return False
    said, own = int(digits, 8), sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    if said == own:
        return True
    # Early writers added bytes up as signed numbers.
    above = sum(b > 0x7F for b in header[:148]) + sum(b > 0x7F for b in header[156:])
    return said == own - 0x100 * above


def _number(text: bytes) -> int:
    """Read a size: octal digits, or, with the first bit set, a number in base 256."""
    if text[0] in (0x80, 0xFF):
        return int.from_bytes(text[1:], "big") - ((1 << 88) if text[0] == 0xFF else 0)
    digits = text.strip(b" \0")
    if not all(0x30 <= d < 0x38 for d in digits):
        raise DamagedError("has a header with a size that is no number")
    return int(digits or b"0", 8)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    return _decoded(name)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _body(read: Callable[[int], bytes], size: int) -> bytes:
    if not 0 <= size <= MOST_HEADER:
        raise DamagedError(f"has an extended header of {size} bytes")
    data = read(padded(size))
    if len(data) < padded(size):
        raise DamagedError("ends in the midst of a header")
    return data[:size]


def _pax(data: bytes) -> dict[str, str]:
    """Read the `length key=value` lines of an extended header."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at] != 0:
        digits, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : max(end - 1, 0)].partition(b"=")
        if end <= at or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise DamagedError("has an extended header that is none")
        fields[_decoded(key)] = _decoded(value)
        at = end
    return fields


def _check_for_all(fields: dict[str, str]) -> None:
    """Refuse a header that would rename every file; anything else in it says nothing."""
    if fields.keys() & {"path", "size"}:
        raise DamagedError("gives all of its files one name or size")
    if _is_sparse(fields):
        raise UnsafeError("holds sparse files")


def _is_sparse(fields: dict[str, str]) -> bool:
    return any(key.startswith("GNU.sparse.") for key in fields)


def _pax_size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise DamagedError(f"has an extended header with a size that is no number, {text[:40]!a}")
    return int(text)
