"""Looking for damage: every byte on disk against what was written; and taking damage out."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featcache.counts import counted
from featcache.errors import CorruptCacheError, FeatcacheError
from featcache.progress import Report
from featcache.store.again import command, extraction
from featcache.store.cache import Cache
from featcache.store.format.checksums import sums_path, write_sums
from featcache.store.format.identity import LISTING, MANIFEST
from featcache.store.format.records import TEXT_STRINGS, ShardLine, TextLine
from featcache.store.listing.files import LOST, UNLESS_REPAIRED
from featcache.store.listing.listing import check_listing, listing_notes, repair_listing
from featcache.store.lock import writer_lock
from featcache.store.lost import in_splits
from featcache.store.provenance import weights_flag
from featcache.store.removal import clear_aside
from featcache.store.repair.consistency import check_parts, say_lost, strangers
from featcache.store.repair.examine import Examined, examine, lines_of
from featcache.store.repair.recover import restore

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
    finished: bool = True
    """Whether a pass over it has ended; True where that cannot be read."""

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return {**asdict(self), "path": str(self.path), "sound": self.is_sound}


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
    if found.is_sound and not found.finished:
        cache = Cache.open(path)
        weights = weights_flag(cache.key, cache.shards)
        go_on = command(extraction(path, cache.dataset, cache.backbone, weights))
        on = cache.cure or f"Go on with: {go_on}, and whatever else it was begun with."
        found = replace(found, notes=(*found.notes, f"No pass over {path} has ended yet. {on}"))
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
    read = lacking = 0
    known: set[tuple[str, str]] = set()
    for file in examine(cache, full=full, workers=workers, told=_told(report, "verify")):
        read += 0 if file.wrong else file.line.facts.bytes
        lacking += file.lacks_sums
        problems += _problems(file)
        is_text = isinstance(file.line, TextLine)
        other = TEXT_STRINGS if is_text else sums_path(Path(file.name)).name
        known |= {(file.component, file.name), (file.component, other)}
    notes = [*listing_notes(path / LISTING), *strangers(path, known)]
    if lacking:
        notes.append(
            f"{lacking} of the shards of {path} have no checksums of their rows beside them: each "
            f"is read whole before its first row is used. `featcache repair`, or the next pass, "
            f"adds them."
        )
    return VerifyReport(
        path=path,
        problems=tuple(problems),
        shards=len(lines_of(cache)),
        bytes=read,
        full=full,
        notes=tuple(notes),
        finished=bool(cache.passes),
    )


def _problems(file: Examined) -> list[Problem]:
    found = []
    if file.wrong:
        found.append(Problem(what=file.wrong, component=file.component, file=file.name))
    if file.sums_wrong:
        name = sums_path(Path(file.name)).name
        found.append(Problem(what=file.sums_wrong, component=file.component, file=name))
    return found


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
        told, sums = _told(report, "repair"), 0
        for file in list(examine(cache, full=True, workers=workers, told=told)):
            if file.is_damaged:
                rows = file.line.rows if isinstance(file.line, ShardLine) else ()
                cache.drop(file.component, file.name)
                dropped.append(Dropped(component=file.component, file=file.name, rows=rows))
            elif file.sums is not None and (file.lacks_sums or file.sums_wrong):
                write_sums(path / file.component / file.name, file.line.facts, file.sums)
                sums += 1
            elif file.wrong:
                kept.append(Problem(what=file.wrong, component=file.component, file=file.name))
        if sums:
            notes.append(f"Wrote the checksums of rows beside {counted(sums, 'shard')} of {path}.")
        if finish_whole(cache):
            notes.append(f"Noted in {path / MANIFEST} that the features are complete.")
    found = _look(path, full=False, report=None, workers=workers)
    found = replace(
        found, problems=tuple(replace(p, what=after_repair(p.what)) for p in found.problems)
    )
    named = {(p.component, p.file) for p in found.problems}
    kept = [p for p in kept if (p.component, p.file) not in named]
    return replace(
        found,
        problems=(*found.problems, *kept),
        notes=(*notes, *cache.notes, *found.notes),
        dropped=tuple(dropped),
    )


def after_repair(what: str) -> str:
    """Leave the advice to run `repair` out of a sentence that `repair` itself says."""
    return what.replace(UNLESS_REPAIRED, "No copy is left. ")


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


def _told(report: Report | None, what: str) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if report is not None:
            report(what, done, total)

    return tell
