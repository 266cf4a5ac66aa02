"""Which corpus joins the support, and how much its rows count: `corpus:NAME:weight=0.3`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from featcache.errors import UsageError
from featcache.wording import Argument, Part

PREFIX = "corpus:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """A corpus and the weight of its rows."""

    corpus: str
    weight: float = 1.0
    """Weight of a corpus row; a labelled image counts 1. Above 0."""

    def __str__(self) -> str:
        """Write it as `parse` reads it; a weight of 1 is left out."""
        weight = "" if self.weight == 1 else f":weight={self.weight!r}"
        return f"{PREFIX}{self.corpus}{weight}"


def parse(text: str) -> Augmentation:
    """Read an augmentation.

    Args:
        text: `corpus:NAME` or `corpus:NAME:weight=W`, W above 0 and at most 1000.

    Raises:
        UsageError: If it is written differently.

    Example:
        >>> parse("corpus:wild:weight=0.3")
        Augmentation(corpus='wild', weight=0.3)
    """
    kind, _, rest = text.partition(":")
    name, _, option = rest.partition(":")
    key, _, value = option.partition("=")
    weight = _number(value) if option else 1.0
    if f"{kind}:" != PREFIX or not name or (option and key != "weight") or weight is None:
        expected = "corpus:NAME or corpus:NAME:weight=W with W above 0 and at most 1000"
        raise UsageError(
            Argument("augment"), f" takes {expected}, got '{text[:80]}'", *_meant(text)
        )
    return Augmentation(corpus=name, weight=weight)


def _meant(text: str) -> Sequence[Part]:
    """End the message; suggest the augmentation where only the prefix is missing."""
    name, _, option = text.partition(":")
    lacks_prefix = name and f"{name}:" != PREFIX and (not option or option.startswith("weight="))
    if not lacks_prefix or len(text) > 80:
        return (".",)
    return ("; did you mean ", Argument("augment", f"{PREFIX}{text}"), "?")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 < value <= 1000 else None
