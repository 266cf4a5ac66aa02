"""Change one byte anywhere in a cache or a run, see that `verify` finds it, and put it back."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from featcache.store.verify import verify
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
    return tuple(problem.what for problem in verify(path, workers=1).problems)


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
        with file.open("r+b", buffering=0) as handle:
            handle.seek(place)
            byte = handle.read(1)
            handle.seek(place)
            handle.write(bytes([byte[0] ^ mask]))
            try:
                problems = check(path)
            finally:
                handle.seek(place)
                handle.write(byte)
        yield Flip(str(file.relative_to(path)), place, mask, problems)
