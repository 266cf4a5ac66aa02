"""Shards and texts of which no manifest line speaks: what they are, and where their lines belong.

A shard says itself what it is (block.py). One that is sound, of this cache and of the images that
are listed is adopted; one that is of this cache and useless may go; all others are strangers, which
are left where they are.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError
from featcache.keys import Listing
from featcache.store.bad import bad_rows
from featcache.store.format.checksums import SUFFIX
from featcache.store.format.header import read_block
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
    """A shard of this very cache that nobody can use: damaged, or taken out before."""


@dataclass(frozen=True, slots=True)
class Strays:
    """What was found."""

    sound: list[ShardLine | TextLine]
    """Lines for those that fit, in order."""
    useless: dict[Path, str]
    """Those that are of this cache and of no use, and why; they may be deleted."""
    strange: dict[Path, str]
    """All others, and why they do not fit."""


def find_strays(folder: Path, digest: str, contents: Contents, *, keep: bool = False) -> Strays:
    """Look at every shard and text of which no line speaks; nothing is changed.

    Args:
        folder: The cache.
        digest: Of its key.
        contents: What the lines say.
        keep: Whether files that were dropped count too, because a later line may be lost.
    """
    shards: list[ShardLine] = []
    texts: list[tuple[int, TextLine]] = []  # with the time they were written
    found = Strays([], {}, {})
    paths = _strays(folder, contents)
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
                found.useless[path] = f"it {error}."
        except (ValueError, CorruptCacheError) as error:
            if not is_text:
                found.strange[path] = (
                    f"it {error}." if isinstance(error, ValueError) else f"{error}"
                )
        except (OSError, CacheError):
            continue  # what cannot be read today may be sound
    texts.sort(key=lambda t: (t[0], t[1].component))
    shards.sort(key=lambda s: (s.component, s.rows[0][0], len(s.file), s.file))
    found.sound[:] = [*shards, *(line for _, line in texts)]
    return found


def lone_sums(folder: Path, contents: Contents) -> list[Path]:
    """List checksums of rows beside which no shard stands, nor should."""
    found = []
    for component in sorted({name for name, _ in contents.files | contents.dropped}):
        place = folder / component
        if place.is_symlink() or not place.is_dir():
            continue
        for path in sorted(place.glob(f"*{SUFFIX}")):
            shard = path.with_suffix(".h5")
            is_ours = SHARD_NAME.fullmatch(shard.name) is not None
            if is_ours and not shard.exists() and (component, shard.name) not in contents.files:
                found.append(path)
    return found


def describe(path: Path, digest: str) -> ShardLine | TextLine:
    """Write the line of a shard, or of texts, from the file alone; every byte is checked.

    Raises:
        UselessError: With a predicate if it is of this cache and not what was written.
        ValueError: With a predicate if nothing shows that it is of this cache.
        CorruptCacheError: If it is a symbolic link, or no plain file.
        UnreadableCacheError: If the strings of texts could not be read.
        OSError: If it cannot be read.
    """
    about, block = read_block(path)
    if about.pop("key", None) != digest or about.get("component") != path.parent.name:
        raise ValueError("belongs to another cache or component")
    found = checksums(path, sha256=True, skip=len(block))
    if found.rest_crc32 != about.pop("rest_crc32", None) or found.bytes != about.get("bytes"):
        raise UselessError("is not what was written")
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


def merged(
    lines: Sequence[Line], found: Iterable[ShardLine | TextLine], *, texts_are_newest: bool
) -> list[Line]:
    """Put adopted lines between others, so that what counts last counts last.

    Args:
        lines: Those of the manifest.
        found: Those that are adopted.
        texts_are_newest: Whether adopted texts become the current ones.
    """
    known = Contents(lines)
    out = list(lines)
    for line in found:
        before = len(out)
        if isinstance(line, TextLine):
            if not texts_are_newest:
                texts = (i for i, other in enumerate(out) if isinstance(other, TextLine))
                before = next(texts, before)
        elif _adds_nothing(line, known.shards.get(line.component, ())):
            first = known.shards[line.component][0]
            before = next(i for i, other in enumerate(out) if other is first)
        else:
            before = _before_mended(out, line)
        out.insert(before, line)
    return out


def _adds_nothing(line: ShardLine, others: Sequence[ShardLine]) -> bool:
    """Tell whether others hold all rows of a shard, and hold them as well as it does."""
    if not covers((pair for other in others for pair in other.rows), line.rows):
        return False
    bad = sorted(bad_rows(others))
    return not (bad and _mends(line, line.component, bad))


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


def _strays(folder: Path, contents: Contents) -> list[Path]:
    """List shards and text rows that no line speaks of; links to folders are not followed."""
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
    with suppress(CacheError):  # a damaged listing says nothing against a shard
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
