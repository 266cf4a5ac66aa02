"""Reading every shard and every text of a cache: what is wrong with each, and what it lacks."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError, FeatcacheError, LinkInCacheError
from featcache.store.cache import Cache
from featcache.store.format.checksums import RowSums, beside, sums_path, write_sums
from featcache.store.format.records import TEXT_ROWS, ShardLine, TextLine
from featcache.store.format.scan import Rows, check_bytes, say_not_finite
from featcache.store.text import read_strings
from featcache.wording import Part, in_python

MOST_WORKERS = 8
"""Threads that read at the same time unless the caller says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One file that was read."""

    line: ShardLine | TextLine
    wrong: Part = ""
    """What is wrong with it, a sentence or two with the cure; empty where nothing is."""
    is_damaged: bool = False
    """Whether that can be cured only by taking it out; False where it could not be read."""
    sums: RowSums | None = None
    """Checksums that belong beside it; None for texts, and where something is wrong."""
    sums_wrong: str = ""
    """What is wrong with those that are there."""
    lacks_sums: bool = False

    @property
    def component(self) -> str:
        """Folder of the file."""
        return self.line.component

    @property
    def name(self) -> str:
        """Name in that folder."""
        return _name(self.line)


@dataclass(slots=True)
class Added:
    """What came of adding checksums."""

    shards: int = 0
    bytes: int = 0
    """Size of these shards, which were read whole."""
    refused: list[str] = field(default_factory=list)
    """Why others got none, a sentence or two each."""
    damaged: list[str] = field(default_factory=list)
    """What is wrong with those that are damaged, with the cure."""


def lines_of(cache: Cache) -> list[ShardLine | TextLine]:
    """Return what the manifest says of every shard, then of all texts."""
    return [*(line for lines in cache.shards.values() for line in lines), *cache.texts]


def path_of(cache: Cache, line: ShardLine | TextLine) -> Path:
    """Return the file of a shard, or of the rows of texts."""
    return cache.path / line.component / _name(line)


def examine(
    cache: Cache,
    *,
    full: bool,
    workers: int | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Examined]:
    """Read every shard and every text, byte by byte.

    Args:
        cache: Opened.
        full: Compare sha256 besides size and crc32.
        workers: Threads that read; None for one a core, eight at most.
        told: Called as (files done so far, of how many).
    """
    lines = lines_of(cache)
    count = workers or min(MOST_WORKERS, os.cpu_count() or 1)
    with ExitStack() as stack:
        each = partial(_examine, cache, full=full)
        found: Iterator[Examined] = map(each, lines)
        if count > 1:  # on a busy machine a thread alone would be waited for after every file
            found = stack.enter_context(ThreadPoolExecutor(count)).map(each, lines)
        for done, one in enumerate(found, start=1):
            told(done, len(lines))
            yield one


def lacking_sums(cache: Cache) -> list[ShardLine]:
    """Return the shards beside which no checksums of rows stand."""
    there = {name: _names_in(cache.path / name) for name in cache.shards}
    return [
        line
        for name, lines in cache.shards.items()
        for line in lines
        if sums_path(Path(line.file)).name not in there[name]
    ]


def add_sums(
    cache: Cache, report: Callable[[str, int, int], None] = lambda what, done, total: None
) -> Added:
    """Put checksums beside the shards that have none, each read whole and found sound before.

    Args:
        cache: Locked by the caller.
        report: Called as (what is being done, shards done so far, of how many).
    """
    added, lacking = Added(), lacking_sums(cache)
    for done, line in enumerate(lacking, start=1):
        found = _examine(cache, line, full=False)
        try:
            if found.sums is not None:
                write_sums(cache.path / line.component / line.file, line.facts, found.sums)
                added.shards, added.bytes = added.shards + 1, added.bytes + line.facts.bytes
            else:
                messages = added.damaged if found.is_damaged else added.refused
                messages.append(in_python([found.wrong]))
        except CacheError as error:  # they only save time: nothing fails for want of room
            added.refused.append(str(error))
            break
        report("checking", done, len(lacking))
    return added


def _examine(cache: Cache, line: ShardLine | TextLine, *, full: bool) -> Examined:
    path = path_of(cache, line)
    try:
        rows = check_bytes(path, line.facts, cache.cure, full=full)
        if isinstance(line, TextLine):
            read_strings(path.parent, line, cache.cure)
    except CorruptCacheError as error:
        is_link = isinstance(error, LinkInCacheError)
        return Examined(line=line, wrong=error.parts, is_damaged=not is_link)
    except FeatcacheError as error:
        return Examined(line=line, wrong=error.parts)
    if len(rows.not_finite):
        return Examined(line=line, wrong=_say(cache, line, path, rows), is_damaged=True)
    if isinstance(line, TextLine):
        return Examined(line=line)
    state = beside(path, line.facts, rows.sums)
    return Examined(line=line, sums=rows.sums, sums_wrong=state or "", lacks_sums=state is None)


def _say(cache: Cache, line: ShardLine | TextLine, path: Path, rows: Rows) -> Part:
    """Name the first row that is not finite, and its image where the listing can be read."""
    position = int(rows.not_finite[0])
    if isinstance(line, TextLine):
        return say_not_finite(path, rows, f"text {position}", cache.cure)
    row = line.row_at(position)
    first = f"row {row}"
    try:
        listing = cache.listing()
        if listing is not None:
            first += f", image {listing.ids[row]}"
    except (FeatcacheError, IndexError):
        pass  # which is a problem of its own
    return say_not_finite(path, rows, first, cache.cure)


def _name(line: ShardLine | TextLine) -> str:
    return line.file if isinstance(line, ShardLine) else TEXT_ROWS


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()
