"""Whole numbers that users of Python give: shots, seeds, and how many of something."""

import operator
from collections.abc import Iterable
from typing import Any

from featcache.errors import UsageError
from featcache.wording import Argument

_MEANING = {
    "shots": "images a class, or None for all of train",
    "seed": "one draw",
    "top": "classes named for an image",
    "seeds": "their number, or the seeds themselves as [1, 2, 3]",
}
"""Argument -> what its numbers mean, for the message."""


def whole(argument: str, value: Any) -> int:
    """Return a whole number, one of numpy's too.

    Args:
        argument: Its name, one of those above, for the message.
        value: What the user gave.

    Raises:
        UsageError: If it is of another type; bool is no number here.

    Example:
        >>> whole("shots", 4)
        4
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise UsageError(
        Argument(argument),
        f" must be a whole number ({_MEANING[argument]}), got {repr(value)[:80]} of type "
        f"{type(value).__name__}.",
    )


def shots_of(value: Any) -> int | None:
    """Return the number of shots; None stays None. Errors as `whole`."""
    return None if value is None else whole("shots", value)


def seeds_of(value: Any) -> tuple[int, ...]:
    """Return seeds: of a number n the seeds 1 to n, else those listed. Errors as `whole`.

    Example:
        >>> seeds_of(3), seeds_of([2, 5])
        ((1, 2, 3), (2, 5))
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return tuple(whole("seeds", seed) for seed in value)
    return tuple(range(1, whole("seeds", value) + 1))
