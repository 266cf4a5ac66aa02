"""What a damaged manifest still proves, and what the files prove without it.

A line is good if its seal agrees with the checksum of a line shortly before it, be that checksum
stated there or computed from the bytes there; so one damaged line takes no other with it. What a
lost line said of a shard stands in the shard's own block: such a shard is adopted (strays.py).
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import CorruptCacheError
from featcache.store.format.files import read_limited, unreadable
from featcache.store.format.identity import (
    KEY_FILE,
    MANIFEST,
    Identity,
    parse_header,
    write_identity,
)
from featcache.store.format.manifest import Contents, read_manifest, write_manifest
from featcache.store.format.records import TEXT_ROWS, DropLine, Line, ShardLine, TextLine, from_json
from featcache.store.format.seal import SEAL, SEAL_LENGTH, checksum, cut_seal, split_seal, unseal
from featcache.store.lost import still_lost
from featcache.store.repair.orphans import find_strays, merged

WINDOW = 8
"""Checksums before a line that may be those of the line before it."""
LOST = "Remove this cache with `featcache rm` and extract again."

_JOINT = re.compile(SEAL + rb'(.)(?=\{"|\Z)', re.DOTALL)
"""A seal and the byte in the place of the line feed that should follow it."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What could be read of a damaged manifest."""

    lines: list[Line]
    """Those that still count, in order, and what they say was dropped."""
    lost: int
    """Pieces that proved nothing."""
    lost_after_text: bool
    """Whether the newest texts may be among what was lost."""


def restore(folder: Path) -> list[str]:
    """Put key.json and manifest right where they are not; the caller holds the lock.

    Returns:
        Sentences that say what was done.

    Raises:
        CorruptCacheError: If both are damaged beyond this, or belong to different caches.
        NewerFormatError: If a later version wrote them.
        CacheError: If an earlier version wrote them, or the disk refuses.
    """
    mine, data = _read(folder / KEY_FILE), _read(folder / MANIFEST)
    key, header = _identity(mine), _identity(data[: data.find(b"\n") + 1])
    identity = _choose(folder, key, header)
    notes = []
    if key != identity:
        write_identity(folder, identity)
        notes.append(f"Restored {folder / KEY_FILE} from the manifest.")
    try:
        read_manifest(folder / MANIFEST, identity)
    except CorruptCacheError:
        # Sound lines behind the sound header of another cache speak of that cache.
        foreign = header is not None and header != identity
        remains = recover(b"" if foreign else data, identity)
        kept = Contents(remains.lines)
        found = find_strays(folder, identity.key.digest(), kept, keep=True).sound
        lines = merged(remains.lines, found, texts_are_newest=remains.lost_after_text)
        write_manifest(folder / MANIFEST, identity, _needed(lines))
        notes.append(
            f"Wrote {folder / MANIFEST} again: {len(remains.lines)} of its lines were whole and "
            f"still count, {len(found)} came from the shards themselves."
        )
    return notes


def recover(data: bytes, identity: Identity) -> Remains:
    """Take every line out of a damaged manifest that its neighbours prove."""
    header = identity.line()[:-1]
    before = deque([split_seal(header)[1]], maxlen=WINDOW)
    good: dict[bytes, Line] = {}
    lost, lost_after_text = 0, not data
    for piece in _pieces(data):
        if piece == header or piece in good:
            continue
        line, after = _proven(piece, before)
        if line is None:
            lost, lost_after_text = lost + 1, True
        else:
            good[piece] = line
            lost_after_text &= not isinstance(line, TextLine)
        before.extendleft(c for c in after if c not in before)
    return Remains(_living(good.values()), lost, lost_after_text)


def _read(path: Path) -> bytes:
    try:
        return read_limited(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise unreadable(path, error, "Put the file itself there.") from error


def _identity(line: bytes) -> Identity | None:
    with suppress(ValueError):
        return parse_header(line)
    return None


def _choose(folder: Path, key: Identity | None, header: Identity | None) -> Identity:
    """Take the identity that is sound; of two sound ones that to which the folder belongs."""
    found = {i for i in (key, header) if i is not None}
    if not found:
        raise CorruptCacheError(
            f"{folder} is lost: both {KEY_FILE} and the first line of {MANIFEST} are damaged, and "
            f"nothing else says what its numbers are. {LOST}"
        )
    if len(found) > 1:
        found = {i for i in found if i.folder(Path()).parts == folder.parts[-2:]}
    if len(found) != 1:
        raise CorruptCacheError(
            f"{folder / KEY_FILE} and {folder / MANIFEST} belong to different caches. "
            f"Restore the right one of them, or remove this cache with `featcache rm`."
        )
    return found.pop()


def _pieces(data: bytes) -> Iterator[bytes]:
    """Split at line feeds, and where a damaged line feed joins two lines."""
    for line in data.split(b"\n"):
        start = 0
        for joint in _JOINT.finditer(line):
            yield line[start : joint.start(1)]
            start = joint.end(1)
        if start < len(line):
            yield line[start:]


def _proven(piece: bytes, before: Iterable[int]) -> tuple[Line | None, list[int]]:
    """Return the line if one of the checksums proves it, and what the next one may build on."""
    for crc in before:
        with suppress(ValueError):
            value, own = unseal(piece, crc)
            return from_json(value), [own]
    after = []
    if len(piece) > SEAL_LENGTH:
        after = [checksum(cut_seal(piece), crc) for crc in before][:2]
    with suppress(ValueError):
        after.append(split_seal(piece)[1])
    return None, after


def _living(lines: Iterable[Line]) -> list[Line]:
    """Leave out what was dropped."""
    out: dict[tuple[str, ...], Line] = {}
    for number, line in enumerate(lines):
        match line:
            case ShardLine() | DropLine():
                where: tuple[str, ...] = (line.component, line.file)
            case TextLine():
                where = (line.component, TEXT_ROWS)
            case _:
                where = (str(number),)
        out.pop(where, None)
        if isinstance(line, DropLine):
            where = (str(number),)
        out[where] = line
    return list(out.values())


def _needed(lines: list[Line]) -> list[Line]:
    """Leave out losses that were made good; the others come first, so that they undo nothing."""
    shards: dict[str, list[ShardLine]] = {}
    for line in lines:
        if isinstance(line, ShardLine):
            shards.setdefault(line.component, []).append(line)
    lost = still_lost((line for line in lines if isinstance(line, DropLine)), shards)
    return [*lost, *(line for line in lines if not isinstance(line, DropLine))]
