"""The manifest: one record per line, sealed JSON whose checksum covers the previous record.

A record is written by one system call after the files it describes are on disk. So a killed writer
leaves at most a torn last record, which means that what it describes did not happen. The same holds
for a power cut, which may also leave zeros in it. Any other wrong seal is damage;
`featcache repair` keeps every valid record.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError, UsageError
from featcache.store.format.files import (
    cure_for,
    explained,
    read_limited,
    write_all,
    write_atomically,
)
from featcache.store.format.identity import Identity, parse_header
from featcache.store.format.records import (
    DropLine,
    Line,
    PassLine,
    ShardLine,
    TextLine,
    UnknownRecordError,
    from_json,
    to_json,
)
from featcache.store.format.seal import seal, split_seal, unseal

CURE = "`featcache repair` keeps every line that is whole, and finds the shards of the others."


@dataclass(slots=True)
class Manifest:
    """The records of a manifest file, and where to append the next one."""

    path: Path
    lines: list[Line] = field(default_factory=list)
    """Records without the header."""
    size: int = 0
    """Bytes of complete records."""
    crc: int = 0
    """Checksum of the last complete record."""
    torn: int = 0
    """Bytes of an unfinished last record."""

    def append(self, line: Line) -> None:
        """Append one record durably; the caller holds the lock of the cache.

        Raises:
            CacheError: If writing fails, or another process wrote in between.
            UsageError: If readers would refuse the record.
        """
        body, crc = _sealed(line, self.crc)
        with explained(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            try:
                size = os.fstat(handle).st_size
                if self.torn and size == self.size + self.torn:
                    os.ftruncate(handle, self.size)
                elif size != self.size:
                    raise CacheError(
                        f"{self.path} has {size} bytes where {self.size} were expected: another "
                        f"process writes to this cache. Run the same command again."
                    )
                self.torn = 0
                try:
                    write_all(handle, body)
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, self.size)
                    raise
            finally:
                os.close(handle)
        self.lines.append(line)
        self.size, self.crc = self.size + len(body), crc

    def truncate(self) -> None:
        """Remove an unfinished last record; the caller holds the lock of the cache."""
        with explained(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.ftruncate(handle, self.size)
                os.fsync(handle)
            finally:
                os.close(handle)
        self.torn = 0


class Contents:
    """Contents of a cache according to its records."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        """Apply records, oldest first."""
        self.shards: dict[str, list[ShardLine]] = {}
        """Component -> its shards, oldest first."""
        self.texts: dict[str, TextLine] = {}
        """Component -> texts, the newest last."""
        self.text: TextLine | None = None
        """The current texts; None after they were dropped, even if older ones exist."""
        self.passes: list[PassLine] = []
        self.files: set[tuple[str, str]] = set()
        """(component, file) of every shard in effect."""
        self.dropped: set[tuple[str, str]] = set()
        """(component, file) of files whose latest record is a drop."""
        self.drops: list[DropLine] = []
        """Every drop, oldest first, also of rows that were encoded again since."""
        for line in lines:
            self.take(line)

    def take(self, line: Line) -> None:
        """Apply one more record; later texts replace earlier ones, drops remove files."""
        match line:
            case ShardLine():
                self.shards.setdefault(line.component, []).append(line)
                self.files.add((line.component, line.file))
                self.dropped.discard((line.component, line.file))
            case TextLine():
                self.texts.pop(line.component, None)
                self.texts[line.component] = line
                self.dropped = {d for d in self.dropped if d[0] != line.component}
                self.text = line
            case PassLine():
                self.passes.append(line)
            case DropLine():
                self.drops.append(line)
                if self.texts.pop(line.component, None) == self.text:
                    self.text = None
                self.files.discard((line.component, line.file))
                self.dropped.add((line.component, line.file))
                others = [s for s in self.shards.pop(line.component, []) if s.file != line.file]
                if others:
                    self.shards[line.component] = others


def write_manifest(path: Path, identity: Identity, lines: Iterable[Line] = ()) -> None:
    """Write a whole manifest atomically."""
    header = identity.line()
    _, crc = split_seal(header[:-1])
    parts = [header]
    for line in lines:
        body, crc = seal(to_json(line), crc)
        parts.append(body)
    write_atomically(path, b"".join(parts))


def read_manifest(path: Path, identity: Identity) -> Manifest:
    """Read and check every record.

    Args:
        path: The manifest.
        identity: Identity from key.json, which the first line must repeat.

    Raises:
        CorruptCacheError: If a record is damaged.
        NewerFormatError: If a later version wrote it.
    """
    try:
        data = read_limited(path)
    except OSError as error:
        raise CorruptCacheError(
            f"{path} cannot be read ({error.strerror}). {cure_for(error, CURE)}"
        ) from error
    *whole, rest = data.split(b"\n")
    header = identity.line()
    if not whole or whole[0] != header[:-1]:
        raise CorruptCacheError(f"Line 1 of {path} {_header_fault(whole, identity)}. {CURE}")
    _, crc = split_seal(whole[0])
    manifest = Manifest(path, size=len(header), crc=crc, torn=len(rest))
    for number, line in enumerate(whole[1:], start=2):
        try:
            value, crc = unseal(line, manifest.crc)
            manifest.lines.append(from_json(value))
        except UnknownRecordError as error:
            raise NewerFormatError(
                f"Line {number} of {path} {error}: a later version wrote it, and this one leaves "
                f"the cache as it is. Update it with: pip install --upgrade featcache"
            ) from error
        except ValueError as error:
            if not rest and number == len(whole) and b"\0" in line:
                manifest.torn = len(line) + 1
                return manifest
            raise CorruptCacheError(f"Line {number} of {path} {error}. {CURE}") from error
        manifest.size, manifest.crc = manifest.size + len(line) + 1, crc
    with suppress(ValueError):
        # A complete record with a wrong line feed was not torn: tearing leaves only zeros there.
        unseal(rest.rstrip(b"\0")[:-1], manifest.crc)
        raise CorruptCacheError(
            f"Line {len(whole) + 1} of {path} does not end in a line feed. {CURE}"
        )
    return manifest


def _sealed(line: Line, previous: int) -> tuple[bytes, int]:
    """Seal a record, and check that readers will accept it."""
    try:
        body, crc = seal(to_json(line), previous)
        parsed = from_json(unseal(body[:-1], previous)[0])
    except ValueError as error:
        raise UsageError(
            f"A line of kind {type(line).__name__} for a manifest {error}, so that no reader would "
            f"take it. Nothing was written."
        ) from error
    if parsed != line:
        raise UsageError(f"{line!r} would read as {parsed!r}. Nothing was written.")
    return body, crc


def _header_fault(lines: list[bytes], identity: Identity) -> str:
    if not lines:
        return "is missing or unfinished"
    try:
        other = parse_header(lines[0] + b"\n")
    except ValueError as error:
        return str(error)
    return (
        f"says that it belongs to {other.dataset}, {other.backbone}, key {other.key.digest()}, not "
        f"to {identity.dataset}, {identity.backbone}, key {identity.key.digest()}"
    )
