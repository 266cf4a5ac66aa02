"""The manifest: one JSON object a line, each line's checksum covering the line before it.

    crc(i) = crc32(hex crc(i-1) + bytes of line i without its crc),   crc(-1) = 0         (1)

A line is written by one system call after everything it speaks of is on disk. So a killed writer
leaves at most a torn last line, which means that the thing it speaks of did not happen. Any other
disagreement with (1) is damage.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError
from featcache.store.files import canonical, cure_for, explained, write_all, write_atomically
from featcache.store.lines import (
    FORMAT,
    DropLine,
    Header,
    Line,
    PassLine,
    ShardLine,
    TextLine,
    from_json,
    to_json,
)

SEAL = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
SEAL_LENGTH = 18
CURE = (
    "`featcache repair` keeps what stands before it, and the same `featcache extract` "
    "command encodes the rest again."
)


@dataclass(slots=True)
class Manifest:
    """What a manifest file says, and where the next line goes."""

    path: Path
    digest: str
    """Of the FeatureKey that this manifest belongs to."""
    lines: list[Line] = field(default_factory=list)
    """Without the header."""
    size: int = 0
    """Bytes of whole lines."""
    crc: int = 0
    """Of the last whole line."""
    torn: int = 0
    """Bytes of an unfinished last line."""
    damage: CorruptCacheError | None = None
    """What stopped a salvaging read; None otherwise."""

    def append(self, line: Line) -> None:
        """Write one line and wait until it is on disk; the caller holds the cache's lock.

        Raises:
            CacheError: If the disk is full, or somebody else wrote in between.
        """
        body, crc = _sealed(to_json(line), self.crc)
        with explained(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
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


@dataclass(frozen=True, slots=True)
class Contents:
    """What a cache holds once all lines are taken together."""

    shards: dict[str, list[ShardLine]]
    """Component -> its shards, oldest first."""
    text: TextLine | None
    """The texts that count."""
    passes: list[PassLine]


def contents_of(lines: Iterable[Line]) -> Contents:
    """Replay the lines: later texts replace earlier ones, dropped files are gone."""
    shards: dict[str, list[ShardLine]] = {}
    texts: list[TextLine] = []
    passes: list[PassLine] = []
    for line in lines:
        match line:
            case ShardLine():
                shards.setdefault(line.component, []).append(line)
            case TextLine():
                texts.append(line)
            case PassLine():
                passes.append(line)
            case DropLine():
                texts = [t for t in texts if t.component != line.component]
                kept = [s for s in shards.pop(line.component, []) if s.file != line.file]
                if kept:
                    shards[line.component] = kept
    return Contents(shards, texts[-1] if texts else None, passes)


def create_manifest(path: Path, digest: str) -> None:
    """Write a manifest that holds its header only."""
    body, _ = _sealed(to_json(Header(format=FORMAT, key=digest)), 0)
    write_atomically(path, body)


def read_manifest(path: Path, digest: str, *, salvage: bool = False) -> Manifest:
    """Read and check every line.

    Args:
        path: The file.
        digest: Of the cache's key, which the header must repeat.
        salvage: Stop at the first damaged line instead of raising, and keep those before it.

    Raises:
        CorruptCacheError: If a line is not what was written.
        NewerFormatError: If a later version wrote it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        otherwise = "Restore it, or remove this cache with `featcache rm` and extract again."
        raise CorruptCacheError(
            f"{path} cannot be read ({error.strerror}). {cure_for(error, otherwise)}"
        ) from error
    *whole, rest = data.split(b"\n")
    manifest = Manifest(path=path, digest=digest, torn=len(rest))
    for number, line in enumerate(whole, start=1):
        try:
            value, crc = _opened(line, manifest.crc)
            parsed = _parsed(value, number, digest)
        except ValueError as error:
            damage = CorruptCacheError(f"Line {number} of {path} {error}. {CURE}")
            if not salvage or number == 1:
                raise damage from error
            manifest.damage, manifest.torn = damage, len(data) - manifest.size
            break
        if not isinstance(parsed, Header):
            manifest.lines.append(parsed)
        manifest.size, manifest.crc = manifest.size + len(line) + 1, crc
    if manifest.size == 0:
        raise CorruptCacheError(
            f"{path} has no header line. Remove this cache with `featcache rm` and extract again."
        )
    return manifest


def truncate(manifest: Manifest) -> None:
    """Cut what follows the last whole line; the caller holds the cache's lock."""
    with explained(manifest.path):
        handle = os.open(manifest.path, os.O_WRONLY)
        try:
            os.ftruncate(handle, manifest.size)
            os.fsync(handle)
        finally:
            os.close(handle)
    manifest.torn, manifest.damage = 0, None


def _sealed(value: dict[str, object], previous: int) -> tuple[bytes, int]:
    body = canonical(value)
    crc = zlib.crc32(body, zlib.crc32(b"%08x" % previous))
    return body[:-1] + b',"crc":"%08x"}\n' % crc, crc


def _opened(line: bytes, previous: int) -> tuple[dict[str, object], int]:
    seal = SEAL.fullmatch(line[-SEAL_LENGTH:])
    if seal is None:
        raise ValueError("does not end with its checksum")
    body = line[:-SEAL_LENGTH] + b"}"
    crc = zlib.crc32(body, zlib.crc32(b"%08x" % previous))
    if int(seal[1], 16) != crc:
        raise ValueError("is not what was written, or lines before it are missing or swapped")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value, crc


def _parsed(value: dict[str, object], number: int, digest: str) -> Line | Header:
    if (number == 1) != (value.get("kind") == "header"):
        raise ValueError("should be the header" if number == 1 else "is a second header")
    if number == 1:
        version = value.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise NewerFormatError(
                f"This cache has format {version}, this program reads up to {FORMAT}. "
                f"Update it with: pip install --upgrade featcache"
            )
    line = from_json(value)
    if isinstance(line, Header) and line.key != digest:
        raise ValueError(f"belongs to the key {line.key}, not to {digest}")
    return line
