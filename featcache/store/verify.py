"""Looking for damage: everything on disk against what the manifest says of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import CacheError, CorruptCacheError, FeatcacheError
from featcache.store.cache import Cache
from featcache.store.identity import read_identity
from featcache.store.lines import TEXT_ROWS
from featcache.store.rows import ShardRows
from featcache.store.shard import ShardFacts, check_bytes

Report = Callable[[str, int, int], None]
"""Called as (what is being done, done so far, of how many)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, in one or two sentences with the cure."""

    what: str
    component: str = ""
    """Folder of the shard that is damaged; empty where it is not one shard."""
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a check found."""

    path: Path
    problems: tuple[Problem, ...]
    shards: int
    """How many were read, texts included."""
    bytes: int
    """How many bytes of them."""
    full: bool
    """Whether sha256 was compared, besides size and crc32."""

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return {**asdict(self), "path": str(self.path), "sound": self.is_sound}


def verify(path: Path, *, full: bool = False, report: Report | None = None) -> VerifyReport:
    """Check a cache: key, manifest, listing, texts, and every byte of every shard.

    Args:
        path: The cache.
        full: Compare sha256 besides size and crc32.
        report: Told of each shard that was read.
    """
    try:
        cache = Cache.open(path)
    except FeatcacheError as error:
        problem = Problem(what=str(error))
        return VerifyReport(path=path, problems=(problem,), shards=0, bytes=0, full=full)
    problems = [*_check_parts(cache)]
    files = _files(cache)
    read = 0
    for done, (component, file, facts) in enumerate(files, start=1):
        problem_or_none = _check_file(path / component / file, facts, full=full)
        if problem_or_none:
            problems.append(Problem(what=problem_or_none, component=component, file=file))
        else:
            read += facts.bytes
        if report is not None:
            report("verify", done, len(files))
    return VerifyReport(
        path=path, problems=tuple(problems), shards=len(files), bytes=read, full=full
    )


def repair(path: Path, *, report: Report | None = None) -> VerifyReport:
    """Take damaged shards and manifest lines out, so that the next pass encodes them again.

    Returns:
        What is still wrong afterwards.

    Raises:
        CacheError: If key or header are damaged, or the cache cannot be written.
    """
    cache = Cache(path, read_identity(path), salvage=True)
    with cache.lock():
        files = _files(cache)
        for done, (component, file, facts) in enumerate(files, start=1):
            if _check_file(path / component / file, facts, full=True):
                cache.drop(component, file)
            if report is not None:
                report("repair", done, len(files))
        if (line := cache.text_line) and _check_text(cache):
            cache.drop(line.component, TEXT_ROWS)
    return verify(path)


def _check_parts(cache: Cache) -> list[Problem]:
    problems = []
    listing = None
    try:
        listing = cache.listing()
        if listing is None:
            raise CacheError(
                f"{cache.path} has no listing yet. Run the same `featcache extract` command again."
            )
    except FeatcacheError as error:
        problems.append(Problem(what=str(error)))
    for name, lines in cache.shards.items():
        n = len(listing) if listing else max(line.rows[-1][1] for line in lines)
        try:
            ShardRows(cache.path / name, lines, n)
        except CorruptCacheError as error:
            problems.append(Problem(what=str(error)))
    widths = {lines[0].facts.shape[-1] for lines in cache.shards.values()}
    if cache.text_line:
        widths.add(cache.text_line.facts.shape[-1])
    if len(widths) > 1:
        problems.append(
            Problem(
                what=f"Components of {cache.path} have different widths: "
                f"{', '.join(map(str, sorted(widths)))}. They come from different models: remove "
                f"this cache with `featcache rm` and extract again."
            )
        )
    if wrong := _check_text(cache):
        problems.append(Problem(what=wrong))
    return problems


def _check_text(cache: Cache) -> str:
    from featcache.store.text import read_strings

    if cache.text_line is None:
        return ""
    try:
        read_strings(cache.path / cache.text_line.component, cache.text_line)
    except CorruptCacheError as error:
        return str(error)
    return ""


def _files(cache: Cache) -> list[tuple[str, str, ShardFacts]]:
    files = [(c, line.file, line.facts) for c, lines in cache.shards.items() for line in lines]
    if cache.text_line:
        files.append((cache.text_line.component, TEXT_ROWS, cache.text_line.facts))
    return files


def _check_file(path: Path, facts: ShardFacts, *, full: bool) -> str:
    try:
        check_bytes(path, facts, full=full)
    except CorruptCacheError as error:
        return str(error)
    return ""
