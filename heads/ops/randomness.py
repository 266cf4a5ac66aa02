"""Random numbers that follow from what they are for, never from what was drawn before."""

import hashlib

from torch import Generator


def generator(*parts: int | str) -> Generator:
    """Return a generator seeded by a hash of the parts: a seed, a stage, a class's name."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
