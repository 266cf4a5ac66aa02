"""What every approximate kind of index is: trained on a sample, filled by blocks, plain arrays."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from featcache.errors import UnknownNameError, UsageError
from featcache.wording import Argument, Setting

LARGEST = 4.0
"""Largest value of a centroid: means of unit vectors, and differences of these, are smaller."""
REFINED = 10
"""Neighbours for which candidates are compared again, at least: products of codes are rough."""
CODED_ONE = 0x3C0A
"""Bits of the float16 1.0098: no value of a unit vector is larger when rounded."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an array must be."""

    dtype: str
    """As numpy writes it, with its byte order: <f4, <i8, |u1."""
    shape: tuple[int, ...]
    """-1 where the other arrays decide."""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """An array to be written, in pieces along its first axis."""

    name: str
    layout: Layout
    parts: Iterator[Shaped[np.ndarray, "..."]]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One parameter of a kind."""

    value: int
    """Value for the given number of vectors."""
    most: int
    """Largest value; the smallest is 1."""
    divides: int = 0
    """What the value must divide; 0 for nothing."""


class Structure(ABC):
    """An approximate index in memory; its ids count the vectors in the order they were added."""

    name: ClassVar[str]
    finds_more: ClassVar[tuple[str, ...]]
    """Parameters whose larger values find more neighbours and take longer, the strongest first."""

    def __init__(self, dim: int, parameters: Mapping[str, int]) -> None:
        """Begin without a vector.

        Args:
            dim: Width of a vector.
            parameters: Values for all names of `choices`.
        """
        self.dim, self.parameters = dim, dict(parameters)

    @classmethod
    @abstractmethod
    def choices(cls, count: int, dim: int) -> dict[str, Choice]:
        """Return the parameters for this many vectors.

        Raises:
            UsageError: If the kind cannot hold them; the message names another kind.
        """

    @abstractmethod
    def sample_size(self, count: int) -> int:
        """Return how many vectors to train on; 0 for none."""

    @abstractmethod
    def train(self, sample: Float32[np.ndarray, "s d"]) -> None:
        """Learn from a sample; at most once, before the first `add`."""

    @abstractmethod
    def add(self, block: Float32[np.ndarray, "b d"]) -> None:
        """Append unit vectors."""

    @abstractmethod
    def layout(self, count: int) -> dict[str, Layout]:
        """Return the arrays that hold this many vectors."""

    @abstractmethod
    def arrays(self) -> Iterator[Pieces]:
        """Yield all arrays of `layout`; each is read to its end before the next one."""

    @abstractmethod
    def restore(
        self, arrays: Mapping[str, Shaped[np.ndarray, "..."]], count: int, *, grows: bool = True
    ) -> None:
        """Take over arrays that `arrays` once returned, from an untrusted file.

        Args:
            arrays: Arrays whose dtype and shape fit `layout`.
            count: Vectors that they hold.
            grows: Whether vectors are added later; if not, large arrays may be read in place.

        Raises:
            ValueError: If a value is out of range; the message is a predicate of the index.
        """

    def candidate_count(self, k: int) -> int:
        """Return how many candidates there are for k neighbours, if there are enough vectors."""
        return k if "refine" not in self.parameters else self.parameters["refine"] * max(k, REFINED)

    @abstractmethod
    def candidates(self, queries: Float32[np.ndarray, "q d"], k: int) -> Int64[np.ndarray, "q c"]:
        """Find ids that are likely the nearest; at least k a query, -1 where there are too few."""


def chosen(
    structure: type[Structure], count: int, dim: int, given: Mapping[str, Any]
) -> dict[str, int]:
    """Return all parameters of a kind, the given ones checked.

    Args:
        structure: The kind.
        count: Vectors.
        dim: Width of a vector.
        given: Values that replace the default ones; integers, or their digits.

    Raises:
        UnknownNameError: If a name is unknown.
        UsageError: If a value is out of range, or the kind cannot hold the vectors.
    """
    choices = structure.choices(count, dim)
    values = {name: choice.value for name, choice in choices.items()}
    for name, value in given.items():
        if name not in choices:
            raise UnknownNameError(
                ("parameter of ", Argument("kind", structure.name)), name, choices
            )
        most, text = choices[name].most, str(value)
        plain = text.isascii() and text.isdecimal() and len(text) <= 18
        if not plain or not 1 <= int(text) <= most:
            raise UsageError(
                Setting(name),
                f" of an index takes a whole number from 1 to {most} for these vectors, "
                f"got {text[:40]!r}.",
            )
        if choices[name].divides % int(text):
            raise UsageError(
                Setting(name), f" of an index must divide {choices[name].divides}, got {text}."
            )
        values[name] = int(text)
    return values


def refuse_outside(values: Shaped[np.ndarray, "..."], what: str) -> None:
    """Raise if a centroid cannot be one of unit vectors.

    Raises:
        ValueError: If a value is not finite, or too large.
    """
    if len(values) and not (np.abs(values) <= LARGEST).all():
        raise ValueError(f"has {what} that are not those of unit vectors")


def refuse_codes(codes: Shaped[np.ndarray, "n b"]) -> None:
    """Raise if the float16 values of vectors cannot be those of unit vectors.

    Raises:
        ValueError: If a value is not finite, or too large.
    """
    step = max(1, (16 << 20) // max(1, codes.shape[1]))
    for first in range(0, len(codes), step):
        bits = codes[first : first + step].view("<u2") & 0x7FFF
        if len(bits) and int(bits.max()) > CODED_ONE:
            raise ValueError("has vectors that are not of unit length")
