"""Change one byte anywhere in a cache, see that `verify` finds it, and put it back."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featcache.store.verify import verify


@dataclass(frozen=True)
class Flip:
    """One changed byte."""

    file: str
    """Below the cache's folder."""
    place: int
    mask: int
    problems: tuple[str, ...]
    """What verify said; nothing means that it was missed."""


def flips(path: Path, trials: int, seed: int) -> Iterator[Flip]:
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
                found = verify(path, workers=1)
            finally:
                handle.seek(place)
                handle.write(byte)
        problems = tuple(p.what for p in found.problems)
        yield Flip(str(file.relative_to(path)), place, mask, problems)
