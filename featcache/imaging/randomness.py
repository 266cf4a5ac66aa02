"""Random numbers that depend only on a name and a position, not on order, batch or machine."""

import hashlib
import math


class Stream:
    """The random numbers of one view: number `i` is a hash of the name and `i`."""

    def __init__(self, *name: object) -> None:
        self._name = "/".join(str(part) for part in name)
        self._position = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw from [low, high)."""
        text = f"{self._name}/{self._position}".encode()
        self._position += 1
        bits = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return low + (high - low) * ((bits >> 11) * 2.0**-53)

    def below(self, stop: int) -> int:
        """Draw an integer from [0, stop)."""
        return int(self.uniform() * stop)

    def normal(self, mean: float, deviation: float) -> float:
        """Draw from a normal distribution by the Box-Muller transform; uses two numbers."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return mean + deviation * radius * math.cos(2.0 * math.pi * self.uniform())

    def sign(self) -> int:
        """Draw -1 or 1."""
        return -1 if self.uniform() < 0.5 else 1


def view_stream(seed: int, recipe: str, sha256: str, view: int) -> Stream:
    """Return the random numbers of one view; ten views are the first ten of twenty."""
    return Stream(seed, recipe, sha256, view)
