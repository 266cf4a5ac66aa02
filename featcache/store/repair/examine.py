"""Read every shard and every text of a cache and report damage and missing checksums."""

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
from featcache.store.format.scan import Rows, check_bytes, not_finite_message
from featcache.store.text import read_strings
from featcache.wording import Part

MOST_WORKERS = 8
"""Default limit of threads that read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """Result for one file."""

    line: ShardLine | TextLine
    wrong: Part = ""
    """The fault with advice, in one or two sentences; empty for a sound file."""
    is_damaged: bool = False
    """Whether it must be dropped; False if it only could not be read."""
    sums: RowSums | None = None
    """Checksums of its rows; None for texts and for faulty files."""
    sums_wrong: str = ""
    """The fault of the stored checksums; empty if they are right or missing."""
    lacks_sums: bool = False

    @property
    def component(self) -> str:
        """Component of the file."""
        return self.line.component

    @property
    def name(self) -> str:
        """File name."""
        return _name(self.line)


@dataclass(slots=True)
class Added:
    """Result of adding checksums."""

    shards: int = 0
    bytes: int = 0
    """Bytes of these shards, which were read completely."""
    refused: list[Part] = field(default_factory=list)
    """Why other shards got none, one message each."""
    damaged: list[Part] = field(default_factory=list)
    """Faults of the damaged shards with advice, one message each."""


def lines_of(cache: Cache) -> list[ShardLine | TextLine]:
    """Return the records of all shards, then of all texts."""
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
    """Read every byte of every shard and every text.

    Args:
        cache: Open cache.
        full: Whether to compare sha256 besides size and crc32.
        workers: Threads that read; None for one per core, eight at most.
        told: Called as (files done so far, number of files).
    """
    lines = lines_of(cache)
    count = workers or min(MOST_WORKERS, os.cpu_count() or 1)
    with ExitStack() as stack:
        each = partial(_examine, cache, full=full)
        results: Iterator[Examined] = map(each, lines)
        if count > 1:  # with one thread, handing over every file costs more than it saves
            results = stack.enter_context(ThreadPoolExecutor(count)).map(each, lines)
        for done, result in enumerate(results, start=1):
            told(done, len(lines))
            yield result


def lacking_sums(cache: Cache) -> list[ShardLine]:
    """Return the shards without checksums of rows."""
    names = {name: _names_in(cache.path / name) for name in cache.shards}
    return [
        line
        for name, lines in cache.shards.items()
        for line in lines
        if sums_path(Path(line.file)).name not in names[name]
    ]


def add_sums(
    cache: Cache, report: Callable[[str, int, int], None] = lambda what, done, total: None
) -> Added:
    """Add checksums of rows to the shards without them, after verifying each shard.

    Args:
        cache: Cache that the caller has locked.
        report: Called as (activity, shards done so far, number of shards).
    """
    added, lacking = Added(), lacking_sums(cache)
    for done, line in enumerate(lacking, start=1):
        result = _examine(cache, line, full=False)
        try:
            if result.sums is not None:
                write_sums(cache.path / line.component / line.file, line.facts, result.sums)
                added.shards, added.bytes = added.shards + 1, added.bytes + line.facts.bytes
            else:
                messages = added.damaged if result.is_damaged else added.refused
                messages.append(result.wrong)
        except CacheError as error:  # checksums are optional, so a full disk is no failure
            added.refused.append(error.parts)
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
        return Examined(line=line, wrong=_not_finite(cache, line, path, rows), is_damaged=True)
    if isinstance(line, TextLine):
        return Examined(line=line)
    state = beside(path, line.facts, rows.sums)
    return Examined(line=line, sums=rows.sums, sums_wrong=state or "", lacks_sums=state is None)


def _not_finite(cache: Cache, line: ShardLine | TextLine, path: Path, rows: Rows) -> Part:
    """Compose the message, with the image of the first row if the listing can be read."""
    position = int(rows.not_finite[0])
    if isinstance(line, TextLine):
        return not_finite_message(path, rows, f"text {position}", cache.cure)
    row = line.row_at(position)
    first = f"row {row}"
    try:
        listing = cache.listing()
        if listing is not None:
            first += f", image {listing.ids[row]}"
    except (FeatcacheError, IndexError):
        pass  # reported elsewhere
    return not_finite_message(path, rows, first, cache.cure)


def _name(line: ShardLine | TextLine) -> str:
    return line.file if isinstance(line, ShardLine) else TEXT_ROWS


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()
