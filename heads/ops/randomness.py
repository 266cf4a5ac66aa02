"""Random numbers that follow from what they are for, never from what was drawn before."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor


def generator(*parts: int | str) -> Generator:
    """Return a generator seeded by a hash of the parts: a seed, a stage, a class's name."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def uniform_by_class(
    classes: Sequence[str], seed: int, each: int, bound: float
) -> Float64[Tensor, "c k"]:
    """Draw `each` numbers within +-bound for every class, from the seed and the class's name.

    So numbering the classes anew changes nothing but the order; of equal names the first, second,
    ... have numbers of their own.
    """
    rows = []
    for label, name in enumerate(classes):
        repeated = classes[:label].count(name)
        rng = generator(seed, name, *([repeated] if repeated else []))
        rows.append(torch.rand(each, generator=rng, dtype=torch.float64))
    return bound * (2 * torch.stack(rows) - 1)


def linear_start(rng: Generator, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Draw a weight within +-1 / sqrt(columns), evenly: torch.nn.Linear's default."""
    drawn = torch.rand(rows, columns, generator=rng)
    start: Tensor = (2 * drawn - 1) / columns**0.5
    return start
