"""Members of a tar file, one after the other, from a stream that need not be seekable.

Headers are read here and not by `tarfile`, which reads an extended header whole, whatever its size,
and remembers every member: a few kilobytes could ask for all of the memory.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from featcache.errors import SourceError
from featcache.sources.fetch.budget import Budget
from featcache.sources.fetch.refusals import damaged, quoted, unsafe

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
LONGEST_HEADER = 1 << 20
"""Bytes of one extended header; a path has at most some thousands."""

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FORBIDDEN = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@runtime_checkable
class Stream(Protocol):
    """What bytes can be read from, in order."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder of an archive."""

    name: str
    """As the archive has it; not checked."""
    size: int
    is_folder: bool
    data: Stream


def members(stream: Stream, archive: str, budget: Budget) -> Iterator[Member]:
    """Read the members of a tar file; data that is not read before the next member is skipped.

    Args:
        stream: The tar file, decompressed.
        archive: Its name, for errors.
        budget: What it may unpack to.

    Raises:
        SourceError: If it is damaged or cut short, holds links, devices or sparse files, or is
            larger than the budget.
    """
    name, size = "", -1  # of an extended header, for the next member
    while True:
        header = _header(stream, archive)
        if header is None:
            _drain(stream, budget)
            return
        budget.member()
        kind = header.type
        if kind in (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            extended = _extended(stream, header.size, archive, budget)
            if kind == tarfile.GNUTYPE_LONGNAME:
                name = extended.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            elif kind in _PAX:
                fields = _pax(extended, archive)
                name = fields.get("path", name)
                size = _number(fields["size"], archive) if "size" in fields else size
            elif kind == tarfile.XGLTYPE and _pax(extended, archive).keys() & {"path", "size"}:
                raise damaged(archive, "gives all of its members one name or size")
            continue
        said = name or header.name
        if kind not in (*_FILES, tarfile.DIRTYPE):
            raise _forbidden(archive, said, kind, header.linkname)
        length = header.size if size < 0 else size
        is_folder = kind == tarfile.DIRTYPE or (kind == tarfile.AREGTYPE and said.endswith("/"))
        if length < 0:
            raise damaged(archive, f"says that {quoted(said)} has {length} bytes")
        budget.take(length)
        data = _Data(stream, length, archive, said)
        yield Member(said, length, is_folder, data)
        data.skip()
        name, size = "", -1


class _Data:
    """The bytes of one member, and the padding behind them."""

    def __init__(self, stream: Stream, size: int, archive: str, name: str) -> None:
        self._stream, self._left, self._padding = stream, size, -size % BLOCK
        self._archive, self._name = archive, name

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left)) if self._left else b""
        if self._left and size and not data:
            raise damaged(self._archive, f"ends in the midst of {quoted(self._name)}")
        self._left -= len(data)
        return data

    def skip(self) -> None:
        while self._left:
            self.read(CHUNK)
        if self._padding and len(_exactly(self._stream, self._padding)) < self._padding:
            raise damaged(self._archive, f"ends behind {quoted(self._name)}")
        self._padding = 0


def _header(stream: Stream, archive: str) -> tarfile.TarInfo | None:
    """Read one header; None at the mark of the end."""
    block = _exactly(stream, BLOCK)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if len(block) == BLOCK and not block.strip(b"\0"):
            return None
        if len(block) < BLOCK:
            raise damaged(archive, "ends without the mark that a tar file ends with") from error
        raise damaged(archive, f"has something else where a header belongs ({error})") from error


def _extended(stream: Stream, size: int, archive: str, budget: Budget) -> bytes:
    if not 0 <= size <= LONGEST_HEADER:
        raise damaged(archive, f"has an extended header of {size} bytes")
    budget.take(size)
    padded = size + -size % BLOCK
    data = _exactly(stream, padded)
    if len(data) < padded:
        raise damaged(archive, "ends in the midst of a header")
    return data[:size]


def _pax(data: bytes, archive: str) -> dict[str, str]:
    """Read the `length key=value` lines of an extended header."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : max(end - 1, 0)].partition(b"=")
        if end <= at or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise damaged(archive, "has an extended header that is none")
        name = key.decode("utf-8", "surrogateescape")
        if name.startswith("GNU.sparse."):
            raise _forbidden(archive, "", tarfile.GNUTYPE_SPARSE, "")
        fields[name] = value.decode("utf-8", "surrogateescape")
        at = end
    return fields


def _number(text: str, archive: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise damaged(archive, f"has a size that is no number, {quoted(text)}")
    return int(text)


def _exactly(stream: Stream, size: int) -> bytes:
    """Read so many bytes; fewer only at the end."""
    data = stream.read(size)
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def _drain(stream: Stream, budget: Budget) -> None:
    """Read to the end, where the checksum of a compressed file is."""
    while data := stream.read(CHUNK):
        budget.take(len(data))


def _forbidden(archive: str, name: str, kind: bytes, target: str) -> SourceError:
    member = f" {quoted(name)}" if name else ""
    if kind == tarfile.LNKTYPE:
        return unsafe(
            archive,
            f"holds a hard link{member} to {quoted(target)}, as some published archives do to "
            f"store an image once, and links are never made here",
        )
    what = _FORBIDDEN.get(kind, f"a member of an unknown kind ({kind!r})")
    return unsafe(archive, f"holds {what}{member}, and only files and folders are unpacked")
