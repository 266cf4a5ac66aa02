"""Refining a search on a logarithmic scale."""

import math
from collections.abc import Callable


def halve(peak: float, rounds: int, right: Callable[[float], float]) -> float:
    """Close in on the best value within a decade of a peak; of equals the smaller side.

    Source: CoOp's released linear probe: the ends of the bracket are compared, the half on the
    better one's side is kept, and the better end of the last round is the answer.

    Args:
        peak: The best value of the grid, above 0.
        rounds: Number of comparisons; `right` is asked once more than that.
        right: Counts right answers on validation at a value.
    """
    known: dict[float, float] = {}

    def at(exponent: float) -> float:
        if exponent not in known:
            known[exponent] = right(10**exponent)
        return known[exponent]

    low, high = math.log10(peak) - 1, math.log10(peak) + 1
    best = low
    for _ in range(rounds):
        middle = (low + high) / 2
        if at(low) < at(high):
            best, low = high, middle
        else:
            best, high = low, middle
    return float(10**best)
