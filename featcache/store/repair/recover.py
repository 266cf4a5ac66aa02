"""Recover the records of a damaged manifest, and rebuild lost ones from the files.

A record is valid if its seal agrees with the checksum of a record shortly before it, either as
stated there or as computed from its bytes. So a damaged record does not invalidate others. The
header of a shard repeats its record: a shard whose record is lost is adopted (orphans.py).
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
from featcache.store.repair.orphans import find_orphans, merged

WINDOW = 8
"""Earlier checksums to try as the checksum of the previous record."""
LOST = "Remove this cache with `featcache rm` and extract again."

_JOINT = re.compile(SEAL + rb'(.)(?=\{"|\Z)', re.DOTALL)
"""A seal, followed by one byte in place of the line feed."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Valid records of a damaged manifest."""

    lines: list[Line]
    """Records still in effect, in order, and all drops."""
    lost: int
    """Number of invalid pieces."""
    lost_after_text: bool
    """Whether the record of the newest texts may be lost."""


def restore(folder: Path) -> list[str]:
    """Repair key.json and the manifest; the caller holds the lock.

    Returns:
        Messages that say what was done.

    Raises:
        CorruptCacheError: If neither identifies the cache, or they belong to different caches.
        NewerFormatError: If a later version wrote them.
        CacheError: If an earlier version wrote them, or writing fails.
    """
    key_data, data = _read(folder / KEY_FILE), _read(folder / MANIFEST)
    key, header = _identity(key_data), _identity(data[: data.find(b"\n") + 1])
    identity = _choose(folder, key, header)
    notes = []
    if key != identity:
        write_identity(folder, identity)
        notes.append(f"Restored {folder / KEY_FILE} from the manifest.")
    try:
        read_manifest(folder / MANIFEST, identity)
    except CorruptCacheError:
        # Records after the valid header of another cache belong to that cache.
        foreign = header is not None and header != identity
        recovered = recover(b"" if foreign else data, identity)
        contents = Contents(recovered.lines)
        orphans = find_orphans(folder, identity.key.digest(), contents, keep=True).sound
        lines = merged(recovered.lines, orphans, texts_are_newest=recovered.lost_after_text)
        write_manifest(folder / MANIFEST, identity, _needed(lines))
        notes.append(
            f"Wrote {folder / MANIFEST} again: {len(recovered.lines)} of its lines were whole and "
            f"still count, {len(orphans)} came from the shards themselves."
        )
    return notes


def recover(data: bytes, identity: Identity) -> Recovered:
    """Return the valid records of a damaged manifest."""
    header = identity.line()[:-1]
    before = deque([split_seal(header)[1]], maxlen=WINDOW)
    valid: dict[bytes, Line] = {}
    lost, lost_after_text = 0, not data
    for piece in _pieces(data):
        if piece == header or piece in valid:
            continue
        line, after = _verified(piece, before)
        if line is None:
            lost, lost_after_text = lost + 1, True
        else:
            valid[piece] = line
            lost_after_text &= not isinstance(line, TextLine)
        before.extendleft(c for c in after if c not in before)
    return Recovered(_in_effect(valid.values()), lost, lost_after_text)


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
    """Choose the valid identity; of two, the one that fits the name of the folder."""
    valid = {i for i in (key, header) if i is not None}
    if not valid:
        raise CorruptCacheError(
            f"{folder} is lost: both {KEY_FILE} and the first line of {MANIFEST} are damaged, and "
            f"nothing else says what its numbers are. {LOST}"
        )
    if len(valid) > 1:
        valid = {i for i in valid if i.folder(Path()).parts == folder.parts[-2:]}
    if len(valid) != 1:
        raise CorruptCacheError(
            f"{folder / KEY_FILE} and {folder / MANIFEST} belong to different caches. "
            f"Restore the right one of them, or remove this cache with `featcache rm`."
        )
    return valid.pop()


def _pieces(data: bytes) -> Iterator[bytes]:
    """Split at line feeds, also where a damaged line feed joins two lines."""
    for line in data.split(b"\n"):
        start = 0
        for joint in _JOINT.finditer(line):
            yield line[start : joint.start(1)]
            start = joint.end(1)
        if start < len(line):
            yield line[start:]


def _verified(piece: bytes, before: Iterable[int]) -> tuple[Line | None, list[int]]:
    """Return the record if a checksum fits, and the checksums to try for the next one."""
    for crc in before:
        with suppress(ValueError):
            value, stated = unseal(piece, crc)
            return from_json(value), [stated]
    after = []
    if len(piece) > SEAL_LENGTH:
        after = [checksum(cut_seal(piece), crc) for crc in before][:2]
    with suppress(ValueError):
        after.append(split_seal(piece)[1])
    return None, after


def _in_effect(lines: Iterable[Line]) -> list[Line]:
    """Remove records of dropped files."""
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
    """Remove drops whose rows exist again; put the others first, so that they drop nothing else."""
    shards: dict[str, list[ShardLine]] = {}
    for line in lines:
        if isinstance(line, ShardLine):
            shards.setdefault(line.component, []).append(line)
    lost = still_lost((line for line in lines if isinstance(line, DropLine)), shards)
    return [*lost, *(line for line in lines if not isinstance(line, DropLine))]
