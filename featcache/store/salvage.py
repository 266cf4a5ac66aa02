"""What a damaged manifest still proves, and what the files prove without it.

A line is good if its seal agrees with the checksum of a line shortly before it, be that checksum
stated there or computed from the bytes there; so one damaged line takes no other with it. What a
lost line said of a shard stands in the shard's own block (block.py): such a shard is adopted.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError
from featcache.store.block import read_block
from featcache.store.files import read_limited
from featcache.store.identity import (
    KEY_FILE,
    MANIFEST,
    Identity,
    parse_header,
    write_identity,
)
from featcache.store.lines import (
    SHARD_NAME,
    TEXT_ROWS,
    TEXT_STRINGS,
    DropLine,
    Line,
    ShardLine,
    TextLine,
    from_json,
    is_component,
)
from featcache.store.listing import count_images
from featcache.store.manifest import Contents, read_manifest, write_manifest
from featcache.store.seal import checksum, split_seal, unseal
from featcache.store.shard import checksums
from featcache.store.text import read_strings

LISTING = "listing"
WINDOW = 8
"""Checksums before a line that may be those of the line before it."""
LOST = "Remove this cache with `featcache rm` and extract again."

_JOINT = re.compile(rb',"crc":"[0-9a-f]{8}"\}(.)(?=\{"|\Z)', re.DOTALL)
"""A seal and the byte in the place of the line feed that should follow it."""
_SEAL_LENGTH = 18


@dataclass(frozen=True, slots=True)
class Remains:
    """What could be read of a damaged manifest."""

    lines: list[Line]
    """Those that still count, in order."""
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
        found, _ = adoptable(folder, identity.key.digest(), Contents(remains.lines), keep=True)
        write_manifest(folder / MANIFEST, identity, merged(remains, found))
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


def adoptable(
    folder: Path, digest: str, contents: Contents, *, keep: bool = False
) -> tuple[list[ShardLine | TextLine], dict[Path, str]]:
    """Find shards and texts that no line speaks of.

    Args:
        folder: The cache.
        digest: Of its key.
        contents: What the lines say.
        keep: Whether files that were dropped count too, because a later line may be lost.

    Returns:
        Lines of the sound ones, in order, and why each of the other shards is none.
    """
    shards: list[ShardLine] = []
    texts: list[tuple[int, TextLine]] = []  # with the time they were written
    refused: dict[Path, str] = {}
    for path in _strays(folder, contents):
        where = (path.parent.name, path.name)
        try:
            if where in contents.dropped and not keep:
                raise ValueError("was taken out as damaged")
            line = describe(path, digest)
            if isinstance(line, TextLine):
                texts.append((path.stat().st_mtime_ns, line))
            else:
                _check_fits(folder, line, contents)
                shards.append(line)
        except (ValueError, CorruptCacheError) as error:
            if path.name != TEXT_ROWS:
                refused[path] = f"it {error}." if isinstance(error, ValueError) else str(error)
        except OSError:
            continue  # what cannot be read today may be sound
    texts.sort(key=lambda t: (t[0], t[1].component))
    shards.sort(key=lambda s: (s.component, s.rows[0][0], len(s.file), s.file))
    ordered: list[ShardLine] = []
    for shard in shards:
        ordered.insert(_before_mended(ordered, shard), shard)
    return [*ordered, *(line for _, line in texts)], refused


def describe(path: Path, digest: str) -> ShardLine | TextLine:
    """Write the line of a shard, or of texts, from the file alone; every byte is checked.

    Raises:
        ValueError: With a predicate if the file is not what was written, or not of this cache.
        CorruptCacheError: If it is a symbolic link, or no plain file.
        OSError: If it cannot be read.
    """
    about, block = read_block(path)
    if about.pop("key", None) != digest or about.get("component") != path.parent.name:
        raise ValueError("belongs to another cache or component")
    found = checksums(path, sha256=True, skip=len(block))
    if found.rest_crc32 != about.pop("rest_crc32", None) or found.bytes != about.get("bytes"):
        raise ValueError("is not what was written")
    facts = {name: about.pop(name, None) for name in ("offset", "shape", "dtype", "bytes")}
    value = {**about, "facts": {**facts, "crc32": found.crc32, "sha256": found.sha256}}
    is_text = path.name == TEXT_ROWS
    line = from_json(value if is_text else {**value, "file": path.name})
    if isinstance(line, ShardLine) and not is_text:
        return line
    if isinstance(line, TextLine) and is_text:
        read_strings(path.parent, line)
        return line
    raise ValueError("says that it is something else")


def merged(remains: Remains, found: Iterable[ShardLine | TextLine]) -> list[Line]:
    """Put adopted lines between those that remain, so that what counts last counts last."""
    out = list(remains.lines)
    for line in found:
        before = len(out)
        if isinstance(line, ShardLine):
            before = _before_mended(out, line)
        elif not remains.lost_after_text:
            texts = (i for i, other in enumerate(out) if isinstance(other, TextLine))
            before = next(texts, before)
        out.insert(before, line)
    return out


def _before_mended(lines: Sequence[Line], line: ShardLine) -> int:
    """Find the place before a shard that mends unreadable images of this one; else the end."""
    rows = sorted(line.bad_rows())
    places = (i for i, other in enumerate(lines) if rows and _mends(other, line.component, rows))
    return next(places, len(lines))


def _mends(other: Line, component: str, rows: Sequence[int]) -> bool:
    if not isinstance(other, ShardLine) or other.component != component:
        return False
    if other.rows[-1][1] <= rows[0] or rows[-1] < other.rows[0][0]:
        return False
    still = other.bad_rows()
    return any(r not in still and any(a <= r < b for a, b in other.rows) for r in rows)


def _read(path: Path) -> bytes:
    try:
        return read_limited(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CorruptCacheError(
            f"{path} cannot be read ({error.strerror}). Make it readable and try again."
        ) from error


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
    if len(piece) > _SEAL_LENGTH:
        body = piece[:-_SEAL_LENGTH] + b"}"
        after = [checksum(body, crc) for crc in before][:2]
    with suppress(ValueError):
        after.append(split_seal(piece)[1])
    return None, after


def _living(lines: Iterable[Line]) -> list[Line]:
    """Leave out what was dropped, and the lines that dropped it."""
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
        if not isinstance(line, DropLine):
            out[where] = line
    return list(out.values())


def _strays(folder: Path, contents: Contents) -> list[Path]:
    """List shards and text rows that no line speaks of; links to folders are not followed."""
    out = []
    for component in sorted(folder.iterdir()):
        name = component.name
        if not is_component(name) or component.is_symlink() or not component.is_dir():
            continue
        if name.startswith("text."):
            rows = component / TEXT_ROWS
            if name not in contents.texts and rows.exists() and (component / TEXT_STRINGS).exists():
                out.append(rows)
            continue
        out += [
            path
            for path in sorted(component.iterdir())
            if SHARD_NAME.fullmatch(path.name)
            and (name, path.name) not in contents.files
            and (path.is_file() or path.is_symlink())
        ]
    return out


def _check_fits(folder: Path, line: ShardLine, contents: Contents) -> None:
    others = contents.shards.get(line.component, [])
    if others and (others[0].facts.shape[1:], others[0].facts.dtype) != (
        line.facts.shape[1:],
        line.facts.dtype,
    ):
        raise ValueError("has rows of another shape than the other shards")
    with suppress(CacheError):  # a damaged listing says nothing against a shard
        listed = count_images(folder / LISTING)
        if listed and line.rows[-1][1] > listed:
            raise ValueError("speaks of rows that nobody listed")
