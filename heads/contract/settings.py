"""What a user may set on a method, and the values that a search walks over."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from featcache.keys import TextKind

Real: TypeAlias = int | float
"""A number as people write it: 1 is as good as 1.0."""


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """The Config or Hyper of a method that has nothing to set."""


@dataclass(frozen=True, kw_only=True)
class WithText:
    """The Config of a method that reads one anchor a class."""

    text: TextKind | None = None
    """What the anchors are made of; None is the data set's default."""


def number(
    default: Real,
    *,
    low: Real = -math.inf,
    high: Real = math.inf,
    above: Real = -math.inf,
    logits: Literal["affine", "smooth", ""] = "",
    whole: bool = False,
    prepare: bool = False,
) -> Any:
    """Declare a number of Config or Hyper together with what a user may set it to.

    Args:
        default: Its value where nobody says.
        low: Smallest value.
        high: Largest value.
        above: Values must be larger than this.
        logits: How they depend on it, which shortens the walk of a grid (`heads.selection.curves`).
        whole: Only whole numbers, in Hyper where every number is a float.
        prepare: Of Hyper: `prepare` reads it, so other values need another call.
    """
    metadata = {"low": low, "high": high, "above": above, "logits": logits}
    return field(default=default, metadata=metadata | {"whole": whole, "prepare": prepare})


def with_values(hyper: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of a Hyper with some fields replaced, by floats or by 0-d tensors.

    The constructor is not run: its checks are for what people type, and they branch on values.
    """
    changed = copy.copy(hyper)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def with_static(config: Any, values: Mapping[str, float]) -> Any:
    """Return a copy of a Config with those of the values that are its own, as whole numbers."""
    own = {f.name for f in fields(config)}
    return replace(config, **{n: int(v) for n, v in values.items() if n in own})


def hyper_values(hyper: Any) -> dict[str, Any]:
    """Return a Hyper's fields by name."""
    return {f.name: getattr(hyper, f.name) for f in fields(hyper)}


@dataclass(frozen=True)
class Grid:
    """Candidate values of some hyper-parameters; the product is walked in the order written.

    Of a post grid the last axis is evaluated in one go (vmap over that axis alone), so whatever
    `combine` computes without it is computed once: write the cheapest axis last (Tip-Adapter:
    beta, then alpha). A train grid may also name whole-number fields of Config.
    """

    axes: Mapping[str, Sequence[Real]] = field(default_factory=dict)
    refine: int = 0
    """For a train grid with one axis: rounds of halving, on a logarithmic scale, the decade on
    either side of the best value."""

    def points(self) -> list[dict[str, float]]:
        """List every combination; a grid without axes has one empty point."""
        names = list(self.axes)
        return [
            {name: float(value) for name, value in zip(names, values, strict=True)}
            for values in itertools.product(*(self.axes[n] for n in names))
        ]

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.axes.values())

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.points())


def evenly(low: Real, high: Real, count: int) -> list[float]:
    """List values of an axis from `low` up to below `high`, as released searches walk.

    Example:
        >>> evenly(0, 2, 4)
        [0.0, 0.5, 1.0, 1.5]
    """
    return [low + i * (high - low) / count for i in range(count)]
