"""Members of a tar file, one after the other, from a stream that need not be seekable."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from featcache.errors import SourceError
from featcache.sources.fetch.budget import Budget
from featcache.sources.fetch.refusals import damaged, quoted, unsafe
from featcache.sources.headers.errors import DamagedError, UnsafeError
from featcache.sources.headers.tar import LABEL, LINK, Entry, next_entry, padded

CHUNK = 1 << 20


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
    while (entry := _next(stream, archive)) is not None:
        budget.member()
        if entry.refused:
            raise _forbidden(archive, entry)
        budget.take(entry.extended + entry.size)
        data = _Data(stream, entry.size, archive, entry.name)
        if entry.kind != LABEL:
            yield Member(entry.name, entry.size, entry.is_folder, data)
        data.skip()
    _drain(stream, budget)


class _Data:
    """The bytes of one member, and the padding behind them."""

    def __init__(self, stream: Stream, size: int, archive: str, name: str) -> None:
        self._stream, self._left, self._padding = stream, size, padded(size) - size
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


def _next(stream: Stream, archive: str) -> Entry | None:
    try:
        return next_entry(lambda size: _exactly(stream, size))
    except DamagedError as error:
        raise damaged(archive, str(error)) from error
    except UnsafeError as error:
        raise unsafe(archive, str(error)) from error


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


def _forbidden(archive: str, entry: Entry) -> SourceError:
    name = quoted(entry.name)
    if entry.kind == LINK:
        return unsafe(
            archive,
            f"holds a hard link {name} to {quoted(entry.target)}, as some published archives do to "
            f"store an image once, and links are never made here",
        )
    return unsafe(archive, f"holds {entry.refused} {name}, and only files and folders are unpacked")
