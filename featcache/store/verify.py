"""Looking for damage: every byte on disk against what was written; and taking damage out."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featcache.errors import CorruptCacheError, FeatcacheError, LinkInCacheError
from featcache.store.cache import Cache
from featcache.store.identity import LISTING, MANIFEST
from featcache.store.lines import TEXT_ROWS, TEXT_STRINGS, TextLine
from featcache.store.listing import check_listing, listing_notes, repair_listing
from featcache.store.listing_files import LOST
from featcache.store.lock import writer_lock
from featcache.store.lost import in_splits
from featcache.store.parts import check_parts, say_lost, strangers
from featcache.store.removal import clear_aside
from featcache.store.salvage import restore
from featcache.store.shard import ShardFacts, check_bytes
from featcache.store.text import read_strings

Report = Callable[[str, int, int], None]
"""Called as (what is being done, files done so far, of how many)."""

MOST_WORKERS = 8
"""Threads that read at the same time unless the caller says otherwise."""
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, in one or two sentences with the cure."""

    what: str
    component: str = ""
    """Folder of the shard that is damaged; empty where it is not one shard."""
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A shard, or texts, that `repair` took out."""

    component: str
    file: str
    rows: Ranges
    """Ranges [start, stop) of listing rows that are missing now; none for texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a check found."""

    path: Path
    problems: tuple[Problem, ...]
    shards: int
    """How many were read, texts included."""
    bytes: int
    """How many bytes of them were sound."""
    full: bool
    """Whether sha256 was compared, besides size and crc32."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no problem: files that belong to nothing, what was repaired."""
    dropped: tuple[Dropped, ...] = ()
    """What `repair` took out."""

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return {**asdict(self), "path": str(self.path), "sound": self.is_sound}


@dataclass(frozen=True, slots=True)
class _File:
    component: str
    name: str
    facts: ShardFacts
    rows: Ranges = ()
    text: TextLine | None = None


@dataclass(frozen=True, slots=True)
class _Wrong:
    file: _File
    why: str
    is_damaged: bool
    """False where nothing says that its bytes are not those that were written."""

    def problem(self) -> Problem:
        return Problem(what=self.why, component=self.file.component, file=self.file.name)


def verify(
    path: Path, *, full: bool = False, report: Report | None = None, workers: int | None = None
) -> VerifyReport:
    """Check a cache: key, manifest, listing, texts, and every byte of every shard.

    Args:
        path: The cache.
        full: Compare sha256 besides size and crc32.
        report: Told of each file that was read.
        workers: Threads that read; None for one a core, eight at most.
    """
    found = _look(path, full=full, report=report, workers=workers)
    if not found.problems or found.shards:
        lost = tuple(Problem(what=what) for what in say_lost(path))
        found = replace(found, problems=(*found.problems, *lost))
    return found


def _look(path: Path, *, full: bool, report: Report | None, workers: int | None) -> VerifyReport:
    """Check a cache, but for rows that `repair` took out."""
    problems = [Problem(what=what) for what in check_listing(path / LISTING)]
    try:
        cache = Cache.open(path)
    except FeatcacheError as error:
        problems.insert(0, Problem(what=str(error)))
        return VerifyReport(path=path, problems=tuple(problems), shards=0, bytes=0, full=full)
    if cache.cure:
        problems = [replace(p, what=p.what.replace(LOST, cache.cure)) for p in problems]
    problems += [Problem(what=what) for what in check_parts(cache, listed=not problems)]
    files = _files(cache)
    read = 0
    for file, wrong in _check_files(cache, files, full, workers, _told(report, "verify")):
        if wrong:
            problems.append(wrong.problem())
        else:
            read += file.facts.bytes
    known = {(file.component, file.name) for file in files}
    known |= {(file.component, TEXT_STRINGS) for file in files if file.text is not None}
    return VerifyReport(
        path=path,
        problems=tuple(problems),
        shards=len(files),
        bytes=read,
        full=full,
        notes=(*listing_notes(path / LISTING), *strangers(path, known)),
    )


def repair(path: Path, *, report: Report | None = None, workers: int | None = None) -> VerifyReport:
    """Put right what a copy or a neighbour restores, and take out damaged shards and texts.

    What is a symbolic link, or could not be read, is a problem; it is not taken out.

    Args:
        path: The cache.
        report: Told of each file that was read.
        workers: Threads that read; None for one a core, eight at most.

    Returns:
        What is still wrong afterwards, and what was taken out. `Cache.lost` names the rows to
        encode again, those of earlier repairs included; they are no problem here.

    Raises:
        CacheError: If nothing says any more what the cache is, or it cannot be written.
    """
    notes = [*clear_aside(path.parent)]
    with writer_lock(path, notes.append):
        if repair_listing(path / LISTING):
            notes.append(f"Restored files of {path / LISTING} from their copies.")
        notes += restore(path)
    cache = Cache.open(path)
    dropped, kept = [], []
    with cache.lock():
        checked = _check_files(cache, _files(cache), True, workers, _told(report, "repair"))
        for wrong in [wrong for _, wrong in checked if wrong]:
            file = wrong.file
            if wrong.is_damaged:
                cache.drop(file.component, file.name)
                dropped.append(Dropped(component=file.component, file=file.name, rows=file.rows))
            else:
                kept.append(wrong.problem())
        if finish_whole(cache):
            notes.append(f"Noted in {path / MANIFEST} that the features are complete.")
    found = _look(path, full=False, report=None, workers=workers)
    named = {(p.component, p.file) for p in found.problems}
    kept = [p for p in kept if (p.component, p.file) not in named]
    return replace(
        found,
        problems=(*found.problems, *kept),
        notes=(*notes, *cache.notes, *found.notes),
        dropped=tuple(dropped),
    )


def finish_whole(cache: Cache) -> bool:
    """Enter a pass where none is left although `global` covers every row of a split.

    Its time is that of the newest shard.

    Returns:
        Whether one was entered.
    """
    try:
        listing = cache.listing()
        if cache.passes or listing is None or "global" not in cache.shards:
            return False
        wanted = in_splits(listing)
        if not wanted.any() or (wanted & ~cache.covered("global")).any():
            return False
    except CorruptCacheError:
        return False
    times = [
        (cache.path / name / line.file).stat().st_mtime
        for name, lines in cache.shards.items()
        for line in lines
        if (cache.path / name / line.file).exists()
    ]
    cache.finish(
        components=sorted(cache.shards),
        images=int(wanted.sum()),
        seconds=0.0,
        complete=True,
        when=min(time.time(), max(times, default=0.0)),
    )
    return True


def _files(cache: Cache) -> list[_File]:
    files = [
        _File(component, line.file, line.facts, line.rows)
        for component, lines in cache.shards.items()
        for line in lines
    ]
    return files + [_File(t.component, TEXT_ROWS, t.facts, text=t) for t in cache.texts]


def _check_files(
    cache: Cache,
    files: Sequence[_File],
    full: bool,
    workers: int | None,
    told: Callable[[int, int], None],
) -> Iterable[tuple[_File, _Wrong | None]]:
    """Yield each file and what is wrong with it."""

    def check(file: _File) -> _Wrong | None:
        try:
            folder = cache.path / file.component
            check_bytes(folder / file.name, file.facts, cache.cure, full=full)
            if file.text is not None:
                read_strings(folder, file.text, cache.cure)
        except CorruptCacheError as error:
            return _Wrong(file, str(error), not isinstance(error, LinkInCacheError))
        except FeatcacheError as error:
            return _Wrong(file, str(error), is_damaged=False)
        return None

    count = workers or min(MOST_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        for done, (file, wrong) in enumerate(
            zip(files, pool.map(check, files), strict=True), start=1
        ):
            told(done, len(files))
            yield file, wrong


def _told(report: Report | None, what: str) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if report is not None:
            report(what, done, total)

    return tell
