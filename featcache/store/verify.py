"""Looking for damage: every byte on disk against what was written; and taking damage out."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from featcache.errors import CorruptCacheError, FeatcacheError
from featcache.store.cache import Cache
from featcache.store.identity import KEY_FILE, MANIFEST
from featcache.store.lines import TEXT_ROWS, TEXT_STRINGS, TextLine
from featcache.store.listing import check_listing, repair_listing
from featcache.store.lock import LOCK, OWNER, is_locked, writer_lock
from featcache.store.rows import ShardRows
from featcache.store.salvage import LISTING, restore
from featcache.store.shard import ShardFacts, check_bytes
from featcache.store.text import read_strings

Report = Callable[[str, int, int], None]
"""Called as (what is being done, files done so far, of how many)."""

MOST_WORKERS = 8
"""Threads that read at the same time unless the caller says otherwise."""
OWN = frozenset({KEY_FILE, MANIFEST, LOCK, OWNER})
"""Files directly in a cache's folder."""
NOTED = 20
"""Files that belong to nothing and are named; of further ones only the number is told."""

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
    text: TextLine | None = field(default=None)


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
    problems = [Problem(what=what) for what in check_listing(path / LISTING)]
    try:
        cache = Cache.open(path)
    except FeatcacheError as error:
        problems.insert(0, Problem(what=str(error)))
        return VerifyReport(path=path, problems=tuple(problems), shards=0, bytes=0, full=full)
    problems += _check_parts(cache, listed=not problems)
    files = _files(cache)
    read = 0
    for file, wrong in _check_files(path, files, full, workers, _told(report, "verify")):
        if wrong:
            problems.append(Problem(what=wrong, component=file.component, file=file.name))
        else:
            read += file.facts.bytes
    return VerifyReport(
        path=path,
        problems=tuple(problems),
        shards=len(files),
        bytes=read,
        full=full,
        notes=_strangers(path, files),
    )


def repair(path: Path, *, report: Report | None = None, workers: int | None = None) -> VerifyReport:
    """Put right what a copy or a neighbour restores, and take out damaged shards and texts.

    Args:
        path: The cache.
        report: Told of each file that was read.
        workers: Threads that read; None for one a core, eight at most.

    Returns:
        What is still wrong afterwards, and what the next pass has to encode again.

    Raises:
        CacheError: If nothing says any more what the cache is, or it cannot be written.
    """
    notes: list[str] = []
    with writer_lock(path, notes.append):
        if repair_listing(path / LISTING):
            notes.append(f"Restored files of {path / LISTING} from their copies.")
        notes += restore(path)
    cache = Cache.open(path)
    dropped = []
    with cache.lock():
        checked = _check_files(path, _files(cache), True, workers, _told(report, "repair"))
        for file in [file for file, wrong in checked if wrong]:
            cache.drop(file.component, file.name)
            dropped.append(Dropped(component=file.component, file=file.name, rows=file.rows))
    found = verify(path, workers=workers)
    return replace(found, notes=(*notes, *cache.notes, *found.notes), dropped=tuple(dropped))


def _check_parts(cache: Cache, *, listed: bool) -> list[Problem]:
    problems = []
    n = None
    try:
        listing = cache.listing()
        n = None if listing is None else len(listing)
        if listing is None and listed:
            what = (
                f"{cache.path} has no listing yet. Run the same `featcache extract` command again."
            )
            problems.append(Problem(what=what))
    except FeatcacheError as error:
        if listed:
            problems.append(Problem(what=str(error)))
    if cache.torn and not is_locked(cache.path):
        what = (
            f"{cache.path / MANIFEST} ends in a line that an interrupted writer left unfinished. "
            f"Run `featcache repair`, or go on with `featcache extract`."
        )
        problems.append(Problem(what=what))
    for name, lines in cache.shards.items():
        if n is None:
            continue
        try:
            ShardRows(cache.path / name, lines, n)
        except CorruptCacheError as error:
            problems.append(Problem(what=str(error)))
    widths = {lines[0].facts.shape[-1] for name, lines in cache.shards.items() if _is_joint(name)}
    widths |= {line.facts.shape[-1] for line in cache.texts[-1:]}
    if len(widths) > 1:
        what = (
            f"Components of {cache.path} have different widths: "
            f"{', '.join(map(str, sorted(widths)))}. They come from different models: remove "
            f"this cache with `featcache rm` and extract again."
        )
        problems.append(Problem(what=what))
    return problems


def _is_joint(component: str) -> bool:
    """Tell whether the last axis of a component is the joint space itself."""
    return not component.startswith("boxes") and not component.endswith(".int8")


def _files(cache: Cache) -> list[_File]:
    files = [
        _File(component, line.file, line.facts, line.rows)
        for component, lines in cache.shards.items()
        for line in lines
    ]
    return files + [_File(t.component, TEXT_ROWS, t.facts, text=t) for t in cache.texts]


def _check_files(
    path: Path,
    files: Sequence[_File],
    full: bool,
    workers: int | None,
    told: Callable[[int, int], None],
) -> Iterable[tuple[_File, str]]:
    """Yield each file and what is wrong with it; empty for nothing."""

    def check(file: _File) -> str:
        try:
            check_bytes(path / file.component / file.name, file.facts, full=full)
            if file.text is not None:
                read_strings(path / file.component, file.text)
        except FeatcacheError as error:
            return str(error)
        return ""

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


def _strangers(path: Path, files: Sequence[_File]) -> tuple[str, ...]:
    """Name what lies in the cache and belongs to nothing."""
    known = {(file.component, file.name) for file in files}
    known |= {(file.component, TEXT_STRINGS) for file in files if file.text is not None}
    found = []
    for entry in sorted(path.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            found += [] if entry.name in OWN else [entry]
        elif entry.name != LISTING:
            found += [p for p in sorted(entry.iterdir()) if (entry.name, p.name) not in known]
    notes = [f"{entry} belongs to nothing in this cache." for entry in found[:NOTED]]
    if len(found) > NOTED:
        notes.append(f"{len(found) - NOTED} more files belong to nothing in this cache.")
    return tuple(notes)
