"""Verify every byte of a cache, and repair or drop what is damaged."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featcache.counts import counted
from featcache.errors import CorruptCacheError, FeatcacheError, LinkInCacheError
from featcache.progress import Report
from featcache.store.again import extract_call
from featcache.store.cache import Cache
from featcache.store.corpora import FOLDER as CORPORA
from featcache.store.corpora import examine_corpora, remove_corpus
from featcache.store.format.checksums import sums_path, write_sums
from featcache.store.format.identity import LAST_BLOCK_FILE, LISTING, MANIFEST
from featcache.store.format.records import TEXT_STRINGS, ShardLine, TextLine
from featcache.store.listing.files import LOST, UNLESS_REPAIRED
from featcache.store.listing.listing import check_listing, listing_notes, repair_listing
from featcache.store.lock import writer_lock
from featcache.store.lost import in_splits
from featcache.store.provenance import weights_argument
from featcache.store.removal import clear_aside
from featcache.store.repair.consistency import (
    check_consistency,
    files_without_record,
    last_block_fault,
    lost_messages,
)
from featcache.store.repair.examine import Examined, examine, lines_of
from featcache.store.repair.recover import restore
from featcache.wording import Part, in_python, replaced

REBUILD = "build it again with `featcache corpus build`."
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem, in one or two sentences with advice."""

    what: Part
    component: str = ""
    """Component of the damaged shard; empty if the problem is not one shard."""
    file: str = ""

    def __str__(self) -> str:
        return in_python([self.what])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A shard, or texts, that `repair` dropped."""

    component: str
    file: str
    rows: Ranges
    """Ranges [start, stop) of listing rows that are now missing; empty for texts and corpora."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """Result of a check."""

    path: Path
    problems: tuple[Problem, ...]
    shards: int
    """Number of shards, texts and corpora that were read."""
    bytes: int
    """Bytes of the sound ones."""
    full: bool
    """Whether sha256 was compared besides size and crc32."""
    notes: tuple[Part, ...] = ()
    """Messages that are no problems: files without a record, and what was repaired."""
    dropped: tuple[Dropped, ...] = ()
    """What `repair` dropped."""
    finished: bool = True
    """Whether a pass has ended; True if that cannot be read."""

    @property
    def is_sound(self) -> bool:
        """Tell whether there is no problem."""
        return not self.problems

    def to_json(self, phrase: Callable[[Sequence[Part]], str] = in_python) -> dict[str, Any]:
        """Return one plain object.

        Args:
            phrase: Writes a message as text.
        """
        return {
            **asdict(self),
            "path": str(self.path),
            "problems": [
                {"what": phrase([p.what]), "component": p.component, "file": p.file}
                for p in self.problems
            ],
            "notes": [phrase([note]) for note in self.notes],
            "sound": self.is_sound,
        }


def verify(
    path: Path, *, full: bool = False, report: Report | None = None, workers: int | None = None
) -> VerifyReport:
    """Check a cache: key, manifest, listing, texts, and every byte of every shard and corpus.

    Args:
        path: Folder of the cache.
        full: Whether to compare sha256 besides size and crc32.
        report: Called for each file that was read.
        workers: Threads that read; None for one per core, eight at most.
    """
    result = _check(path, full=full, report=report, workers=workers)
    if result.is_sound and not result.finished:
        cache = Cache.open(path)
        weights = weights_argument(cache.key, cache.shards)
        call = extract_call(path, cache.dataset, cache.backbone, weights)
        go_on = cache.cure or ("Go on with: ", call, ", and whatever else it was begun with.")
        note = (f"No pass over {path} has ended yet. ", go_on)
        result = replace(result, notes=(*result.notes, note))
    if not result.problems or result.shards:
        lost = tuple(Problem(what=what) for what in lost_messages(path))
        result = replace(result, problems=(*result.problems, *lost))
    return result


def _check(path: Path, *, full: bool, report: Report | None, workers: int | None) -> VerifyReport:
    """Check a cache, except for what `repair` dropped."""
    try:
        cache = Cache.open(path)
    except FeatcacheError as error:
        problems = [Problem(what=what) for what in (error.parts, *check_listing(path / LISTING))]
        return VerifyReport(path=path, problems=tuple(problems), shards=0, bytes=0, full=full)
    listing = check_listing(path / LISTING, cure=cache.cure or LOST)
    problems = [Problem(what=what) for what in listing]
    inconsistent = check_consistency(cache, report_listing=not problems)
    problems += [Problem(what=what) for what in inconsistent]
    if (fault := last_block_fault(cache)) is not None:
        problems.append(Problem(what=fault.parts, file=LAST_BLOCK_FILE))
    read = lacking = 0
    known: set[tuple[str, str]] = set()
    for file in examine(cache, full=full, workers=workers, told=_told(report, "verify")):
        read += 0 if file.wrong else file.line.facts.bytes
        lacking += file.lacks_sums
        problems += _problems(file)
        is_text = isinstance(file.line, TextLine)
        other = TEXT_STRINGS if is_text else sums_path(Path(file.name)).name
        known |= {(file.component, file.name), (file.component, other)}
    corpora = list(examine_corpora(path))
    for corpus in corpora:
        read += 0 if corpus.wrong else corpus.bytes
        known.add((CORPORA, corpus.file))
        if corpus.wrong:
            problems.append(Problem(what=corpus.wrong, component=CORPORA, file=corpus.file))
    notes: list[Part] = [*listing_notes(path / LISTING), *files_without_record(path, known)]
    if lacking:
        notes.append(
            f"{lacking} of the shards of {path} have no checksums of their rows beside them: each "
            f"is read whole before its first row is used. `featcache repair`, or the next pass, "
            f"adds them."
        )
    return VerifyReport(
        path=path,
        problems=tuple(problems),
        shards=len(lines_of(cache)) + len(corpora),
        bytes=read,
        full=full,
        notes=tuple(notes),
        finished=bool(cache.passes),
    )


def _problems(file: Examined) -> list[Problem]:
    problems = []
    if file.wrong:
        problems.append(Problem(what=file.wrong, component=file.component, file=file.name))
    if file.sums_wrong:
        name = sums_path(Path(file.name)).name
        problems.append(Problem(what=file.sums_wrong, component=file.component, file=name))
    return problems


def repair(path: Path, *, report: Report | None = None, workers: int | None = None) -> VerifyReport:
    """Restore files from their copies, and drop damaged shards, texts and corpora.

    Symbolic links and files that could not be read are reported as problems and not dropped.

    Args:
        path: Folder of the cache.
        report: Called for each file that was read.
        workers: Threads that read; None for one per core, eight at most.

    Returns:
        Remaining problems and dropped files. `Cache.lost` returns the rows to encode again,
        including those of earlier repairs; they are not reported as problems.

    Raises:
        CacheError: If the cache can no longer be identified, or cannot be written.
    """
    notes = [*clear_aside(path.parent)]
    with writer_lock(path, notes.append):
        if repair_listing(path / LISTING):
            notes.append(f"Restored files of {path / LISTING} from their copies.")
        notes += restore(path)
    cache = Cache.open(path)
    dropped, unreadable = [], []
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
                unreadable += _problems(file)
        for corpus in [c for c in examine_corpora(path) if c.is_damaged]:
            remove_corpus(cache, Path(corpus.file).stem)
            dropped.append(Dropped(component=CORPORA, file=corpus.file, rows=()))
            notes.append(f"Deleted the damaged corpus {path / CORPORA / corpus.file}: {REBUILD}")
        fault = last_block_fault(cache)
        if isinstance(fault, CorruptCacheError) and not isinstance(fault, LinkInCacheError):
            cache.drop_last_block()
            notes.append(f"Deleted {path / LAST_BLOCK_FILE}, which was damaged.")
        if sums:
            notes.append(f"Wrote the checksums of rows beside {counted(sums, 'shard')} of {path}.")
        if finish_whole(cache):
            notes.append(f"Noted in {path / MANIFEST} that the features are complete.")
    result = _check(path, full=False, report=None, workers=workers)
    problems = [replace(p, what=after_repair(p.what)) for p in result.problems]
    named = {(p.component, p.file) for p in problems}
    problems += [p for p in unreadable if (p.component, p.file) not in named]
    return replace(
        result,
        problems=tuple(problems),
        notes=(*notes, *cache.notes, *result.notes),
        dropped=tuple(dropped),
    )


def after_repair(what: Part) -> Part:
    """Remove the advice to run `repair` from a message of `repair` itself."""
    return replaced(what, UNLESS_REPAIRED, "No copy is left. ")


def finish_whole(cache: Cache) -> bool:
    """Record a pass if none is left and `global` covers every row of every split.

    Its time is the modification time of the newest shard.

    Returns:
        Whether a pass was recorded.
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
