"""The manifest: one sealed JSON object a line, each covering the line before it.

A line is written by one system call after everything it speaks of is on disk. So a killed writer
leaves at most a torn last line, which means that the thing it speaks of did not happen; so does a
power cut, which may leave zeros in it, whole sectors of them. Any other disagreement with a seal is
damage, and `featcache repair` keeps every line that is whole.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError, UsageError
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
    from_json,
    to_json,
)
from featcache.store.format.seal import seal, split_seal, unseal

CURE = "`featcache repair` keeps every line that is whole, and finds the shards of the others."


@dataclass(slots=True)
class Manifest:
    """What a manifest file says, and where the next line goes."""

    path: Path
    lines: list[Line] = field(default_factory=list)
    """Without the header."""
    size: int = 0
    """Bytes of whole lines."""
    crc: int = 0
    """Checksum of the last whole line."""
    torn: int = 0
    """Bytes of an unfinished last line."""

    def append(self, line: Line) -> None:
        """Write one line and wait until it is on disk; the caller holds the cache's lock.

        Raises:
            CacheError: If the disk is full, or somebody else wrote in between.
            UsageError: If no reader would take the line.
        """
        body, crc = _sealed(line, self.crc)
        with explained(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            try:
                found = os.fstat(handle).st_size
                if self.torn and found == self.size + self.torn:
                    os.ftruncate(handle, self.size)
                elif found != self.size:
                    raise CacheError(
                        f"{self.path} has {found} bytes where {self.size} were expected: another "
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
        """Cut an unfinished last line; the caller holds the cache's lock."""
        with explained(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.ftruncate(handle, self.size)
                os.fsync(handle)
            finally:
                os.close(handle)
        self.torn = 0


class Contents:
    """What a cache holds once its lines are taken together, line by line."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        """Take the lines, oldest first."""
        self.shards: dict[str, list[ShardLine]] = {}
        """Component -> its shards, oldest first."""
        self.texts: dict[str, TextLine] = {}
        """Component -> texts, the newest last."""
        self.text: TextLine | None = None
        """The current texts; older ones do not take the place of those that were dropped."""
        self.passes: list[PassLine] = []
        self.files: set[tuple[str, str]] = set()
        """(component, file) of every shard that counts."""
        self.dropped: set[tuple[str, str]] = set()
        """(component, file) of what was last mentioned because it no longer counts."""
        self.drops: list[DropLine] = []
        """Every loss, oldest first; what was encoded again since counts all the same."""
        for line in lines:
            self.take(line)

    def take(self, line: Line) -> None:
        """Take one more line; later texts replace earlier ones, dropped files are gone."""
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
                kept = [s for s in self.shards.pop(line.component, []) if s.file != line.file]
                if kept:
                    self.shards[line.component] = kept


def write_manifest(path: Path, identity: Identity, lines: Iterable[Line] = ()) -> None:
    """Put a manifest in place, in one step."""
    header = identity.line()
    _, crc = split_seal(header[:-1])
    parts = [header]
    for line in lines:
        body, crc = seal(to_json(line), crc)
        parts.append(body)
    write_atomically(path, b"".join(parts))


def read_manifest(path: Path, identity: Identity) -> Manifest:
    """Read and check every line.

    Args:
        path: The file.
        identity: What key.json says, and the first line must repeat.

    Raises:
        CorruptCacheError: If a line is not what was written.
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
        raise CorruptCacheError(f"Line 1 of {path} {_why(whole, identity)}. {CURE}")
    _, crc = split_seal(whole[0])
    manifest = Manifest(path, size=len(header), crc=crc, torn=len(rest))
    for number, line in enumerate(whole[1:], start=2):
        try:
            value, crc = unseal(line, manifest.crc)
            manifest.lines.append(from_json(value))
        except ValueError as error:
            if not rest and number == len(whole) and b"\0" in line:
                manifest.torn = len(line) + 1
                return manifest
            raise CorruptCacheError(f"Line {number} of {path} {error}. {CURE}") from error
        manifest.size, manifest.crc = manifest.size + len(line) + 1, crc
    with suppress(ValueError):
        # A line that is whole but for its line feed was not torn: a tear puts no other byte there
        # than zero.
        unseal(rest.rstrip(b"\0")[:-1], manifest.crc)
        raise CorruptCacheError(
            f"Line {len(whole) + 1} of {path} does not end in a line feed. {CURE}"
        )
    return manifest


def _sealed(line: Line, previous: int) -> tuple[bytes, int]:
    """Seal a line, and read it as any reader will."""
    try:
        body, crc = seal(to_json(line), previous)
        found = from_json(unseal(body[:-1], previous)[0])
    except ValueError as error:
        raise UsageError(
            f"A line of kind {type(line).__name__} for a manifest {error}, so that no reader would "
            f"take it. Nothing was written."
        ) from error
    if found != line:
        raise UsageError(f"{line!r} would read as {found!r}. Nothing was written.")
    return body, crc


def _why(lines: list[bytes], identity: Identity) -> str:
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
