"""Orphans: shards and texts without a record in the manifest.

The header of a shard describes it (header.py). A sound orphan of this cache and of listed images is
adopted: it gets a record again. A useless orphan of this cache may be deleted. Foreign files are
kept.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError
from featcache.keys import Listing
from featcache.store.bad import bad_rows
from featcache.store.format.checksums import SUFFIX
from featcache.store.format.header import read_header
from featcache.store.format.identity import LISTING
from featcache.store.format.manifest import Contents
from featcache.store.format.records import (
    SHARD_NAME,
    TEXT_ROWS,
    TEXT_STRINGS,
    Line,
    ShardLine,
    TextLine,
    from_json,
    kind_of,
)
from featcache.store.format.scan import checksums
from featcache.store.listing.listing import read_listing
from featcache.store.rows import covers, images_crc32
from featcache.store.text import read_strings


class UselessError(ValueError):
    """A shard of this cache that is damaged or was dropped before."""


@dataclass(frozen=True, slots=True)
class Orphans:
    """The orphans of a cache."""

    sound: list[ShardLine | TextLine]
    """Records of the orphans to adopt, in order."""
    useless: dict[Path, str]
    """Orphans of this cache that may be deleted -> reason."""
    foreign: dict[Path, str]
    """All other files -> why they do not fit."""


def find_orphans(folder: Path, digest: str, contents: Contents, *, keep: bool = False) -> Orphans:
    """Classify every shard and text without a record; nothing is changed.

    Args:
        folder: Folder of the cache.
        digest: Digest of its key.
        contents: Contents according to the manifest.
        keep: Whether dropped files count as orphans, because a later record may be lost.
    """
    shards: list[ShardLine] = []
    texts: list[tuple[int, TextLine]] = []  # with their modification time
    orphans = Orphans([], {}, {})
    paths = _without_record(folder, contents)
    listing = _listing(folder) if paths else None
    for path in paths:
        is_text = path.name == TEXT_ROWS
        try:
            if (path.parent.name, path.name) in contents.dropped and not keep:
                raise UselessError("was taken out as damaged")
            line = describe(path, digest)
            if isinstance(line, TextLine):
                texts.append((path.stat().st_mtime_ns, line))
            else:
                _check_fits(line, contents, listing)
                shards.append(line)
        except UselessError as error:
            if not is_text:
                orphans.useless[path] = f"it {error}."
        except (ValueError, CorruptCacheError) as error:
            if not is_text:
                orphans.foreign[path] = (
                    f"it {error}." if isinstance(error, ValueError) else f"{error}"
                )
        except (OSError, CacheError):
            continue  # a file that cannot be read now may be sound
    texts.sort(key=lambda t: (t[0], t[1].component))
    shards.sort(key=lambda s: (s.component, s.rows[0][0], len(s.file), s.file))
    orphans.sound[:] = [*shards, *(line for _, line in texts)]
    return orphans


def lone_sums(folder: Path, contents: Contents) -> list[Path]:
    """List checksum files of rows whose shard neither exists nor is in the manifest."""
    lone = []
    for component in sorted({name for name, _ in contents.files | contents.dropped}):
        place = folder / component
        if place.is_symlink() or not place.is_dir():
            continue
        for path in sorted(place.glob(f"*{SUFFIX}")):
            shard = path.with_suffix(".h5")
            is_ours = SHARD_NAME.fullmatch(shard.name) is not None
            if is_ours and not shard.exists() and (component, shard.name) not in contents.files:
                lone.append(path)
    return lone


def describe(path: Path, digest: str) -> ShardLine | TextLine:
    """Compose the record of a shard, or of texts, from the file alone; every byte is checked.

    Raises:
        UselessError: If it is of this cache and damaged; the message is a predicate.
        ValueError: If it is not known to be of this cache; the message is a predicate.
        CorruptCacheError: If it is a symbolic link, or not a plain file.
        UnreadableCacheError: If the strings of texts could not be read.
        OSError: If it cannot be read.
    """
    about, header = read_header(path)
    if about.pop("key", None) != digest or about.get("component") != path.parent.name:
        raise ValueError("belongs to another cache or component")
    actual = checksums(path, sha256=True, skip=len(header))
    if actual.rest_crc32 != about.pop("rest_crc32", None) or actual.bytes != about.get("bytes"):
        raise UselessError("is not what was written")
    facts = {name: about.pop(name, None) for name in ("offset", "shape", "dtype", "bytes")}
    value = {**about, "facts": {**facts, "crc32": actual.crc32, "sha256": actual.sha256}}
    is_text = path.name == TEXT_ROWS
    line = from_json(value if is_text else {**value, "file": path.name})
    if isinstance(line, ShardLine) and not is_text:
        return line
    if isinstance(line, TextLine) and is_text:
        read_strings(path.parent, line)
        return line
    raise ValueError("says that it is something else")


def merged(
    lines: Sequence[Line], adopted: Iterable[ShardLine | TextLine], *, texts_are_newest: bool
) -> list[Line]:
    """Insert adopted records so that later records keep their precedence.

    Args:
        lines: Records of the manifest.
        adopted: Records of the orphans.
        texts_are_newest: Whether adopted texts become the current ones.
    """
    known = Contents(lines)
    out = list(lines)
    for line in adopted:
        before = len(out)
        if isinstance(line, TextLine):
            if not texts_are_newest:
                texts = (i for i, other in enumerate(out) if isinstance(other, TextLine))
                before = next(texts, before)
        elif _adds_nothing(line, known.shards.get(line.component, ())):
            first = known.shards[line.component][0]
            before = next(i for i, other in enumerate(out) if other is first)
        else:
            before = _before_better(out, line)
        out.insert(before, line)
    return out


def _adds_nothing(line: ShardLine, others: Sequence[ShardLine]) -> bool:
    """Tell whether other shards contain all rows of a shard, with as many readable images."""
    if not covers((pair for other in others for pair in other.rows), line.rows):
        return False
    bad = sorted(bad_rows(others))
    return not (bad and _improves(line, line.component, bad))


def _before_better(lines: Sequence[Line], line: ShardLine) -> int:
    """Return the place before a shard in which unreadable images of this one are readable."""
    rows = sorted(line.bad_rows())
    places = (i for i, other in enumerate(lines) if rows and _improves(other, line.component, rows))
    return next(places, len(lines))


def _improves(other: Line, component: str, rows: Sequence[int]) -> bool:
    """Tell whether a shard has one of these unreadable rows with a readable image."""
    if not isinstance(other, ShardLine) or other.component != component:
        return False
    if other.rows[-1][1] <= rows[0] or rows[-1] < other.rows[0][0]:
        return False
    bad = other.bad_rows()
    return any(r not in bad and any(a <= r < b for a, b in other.rows) for r in rows)


def _without_record(folder: Path, contents: Contents) -> list[Path]:
    """List shards and rows of texts without a record; links to folders are not followed."""
    out = []
    for component in sorted(folder.iterdir()):
        name = component.name
        kind = kind_of(name)
        if not kind or component.is_symlink() or not component.is_dir():
            continue
        if kind == "text":
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


def _listing(folder: Path) -> Listing | None:
    with suppress(CacheError):  # a damaged listing is no evidence against a shard
        return read_listing(folder / LISTING)
    return None


def _check_fits(line: ShardLine, contents: Contents, listing: Listing | None) -> None:
    others = contents.shards.get(line.component, [])
    if others and (others[0].facts.shape[1:], others[0].facts.dtype) != (
        line.facts.shape[1:],
        line.facts.dtype,
    ):
        raise ValueError("has rows of another shape than the other shards")
    if listing is None:
        return
    if line.rows[-1][1] > len(listing):
        raise ValueError("speaks of rows that nobody listed")
    images = line.images_crc32
    with suppress(CacheError):
        images = images_crc32(listing, line.rows)
    if images != line.images_crc32:
        raise ValueError("was made of other images than the listing names")
