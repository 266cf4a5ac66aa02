"""Change one byte of a cache or a run, see that `verify` or a reader finds it, and put it back."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import CorruptCacheError
from featcache.store.cache import Cache
from featcache.store.format.checksums import sums_path
from featcache.store.format.records import ShardLine
from featcache.store.repair.verify import verify
from heads.results.verify import verify_runs

Check = Callable[[Path], tuple[str, ...]]
"""Returns what is wrong with a folder, a sentence each."""


@dataclass(frozen=True)
class Flip:
    """One changed byte."""

    file: str
    """Below the folder."""
    place: int
    mask: int
    problems: tuple[str, ...]
    """What verify said; nothing means that it was missed."""


def of_cache(path: Path) -> tuple[str, ...]:
    """Return what is wrong with a cache."""
    return tuple(str(problem) for problem in verify(path, workers=1).problems)


def of_runs(path: Path) -> tuple[str, ...]:
    """Return what is wrong with the runs under a root."""
    return tuple(problem.what for problem in verify_runs(path).problems)


def flips(path: Path, trials: int, seed: int, check: Check = of_cache) -> Iterator[Flip]:
    """Change single bytes, half of them in a random file, half at a random byte of them all."""
    rng = random.Random(seed)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size)
    sizes = [p.stat().st_size for p in files]
    for trial in range(trials):
        file = rng.choice(files) if trial % 2 else rng.choices(files, sizes)[0]
        place, mask = rng.randrange(file.stat().st_size), rng.randint(1, 255)
        with _flipped(file, place, mask):
            problems = check(path)
        yield Flip(str(file.relative_to(path)), place, mask, problems)


@dataclass(frozen=True)
class ReadFlip:
    """One changed byte of a shard, or of the checksums beside it, and what a reader made of it."""

    component: str
    file: str
    place: int
    mask: int
    is_in_rows: bool
    """Whether the byte is one of a feature; all others describe them."""
    told: str
    """What the reader said; nothing where it read."""
    is_right: bool
    """Whether it read what was written."""

    @property
    def is_missed(self) -> bool:
        """Tell whether a wrong value came out, or a wrong byte of a feature was not told."""
        return not self.told and (self.is_in_rows or not self.is_right)


def read_flips(path: Path, trials: int, seed: int) -> Iterator[ReadFlip]:
    """Change single bytes, each component's in turn, and read in a cache opened anew.

    Of five, three are bytes of features, one is anywhere in the shard, one in its checksums; rows
    are read all, or some at random, the changed one among them.
    """
    rng, cache = random.Random(seed), Cache.open(path)
    sound = {name: _read(path, name, None) for name in cache.shards}
    for trial in range(trials):
        name = sorted(cache.shards)[trial % len(cache.shards)]
        line = rng.choice(cache.shards[name])
        file, facts = path / name / line.file, line.facts
        size = facts.row_bytes * facts.shape[0]
        place, row = rng.randrange(facts.bytes), -1
        match rng.randrange(5):
            case 0 if sums_path(file).exists():
                file = sums_path(file)
                place = rng.randrange(file.stat().st_size)
            case 1:
                pass
            case _:
                place = facts.offset + rng.randrange(size)
        is_in_rows = file.suffix == ".h5" and 0 <= place - facts.offset < size
        if is_in_rows:
            row = line.row_at((place - facts.offset) // facts.row_bytes)
        rows = None if rng.random() < 0.5 else _some(line, row, rng)
        mask, told, is_right = rng.randint(1, 255), "", False
        with _flipped(file, place, mask):
            try:
                found = _read(path, name, rows)
                is_right = all(bool((found[r] == sound[name][r]).all()) for r in found)
            except CorruptCacheError as error:
                told = str(error)
        yield ReadFlip(name, file.name, place, mask, is_in_rows, told, is_right)


def _read(path: Path, component: str, rows: list[int] | None) -> dict[int, np.ndarray[Any, Any]]:
    """Read rows, or all; return their bytes, since no NaN equals itself."""
    reader = Cache.open(path).rows(component)
    wanted = np.flatnonzero(reader.present()) if rows is None else np.array(rows, dtype=np.int64)
    values = reader.gather(wanted)
    return dict(zip(wanted.tolist(), values.reshape(len(wanted), -1).view(np.uint8), strict=True))


def _some(line: ShardLine, row: int, rng: random.Random) -> list[int]:
    """Choose some rows of a shard in any order, one of them for certain."""
    held = [r for first, last in line.rows for r in range(first, last)]
    rows = rng.sample(held, rng.randint(1, len(held)))
    return rows if row in rows or row < 0 else [*rows, row]


@contextmanager
def _flipped(file: Path, place: int, mask: int) -> Iterator[None]:
    """Change one byte while the block runs."""
    with file.open("r+b", buffering=0) as handle:
        handle.seek(place)
        byte = handle.read(1)
        handle.seek(place)
        handle.write(bytes([byte[0] ^ mask]))
        try:
            yield
        finally:
            handle.seek(place)
            handle.write(byte)
