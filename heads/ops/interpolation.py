"""A smooth function on many values of an axis, from few of them.

    f(x) = sum_j L_j(x) f(x_j)        L_j(x) = prod over k != j of (x - x_k) / (x_j - x_k)   (1)

The nodes x_j are Leja points of the values: each has the largest product of distances from those
before it, which keeps the polynomials small between them, as Chebyshev points do.
"""

import math
from collections.abc import Iterable, Sequence


def leja_points(values: Iterable[float], most: int) -> list[float]:
    """Pick at most so many of some values as nodes, ascending; the ends are the first two."""
    left = sorted(set(values))
    if len(left) <= most:
        return left
    picked = [left[0]]
    while len(picked) < most:
        picked.append(max(left, key=lambda x: math.prod(abs(x - node) for node in picked)))
    return sorted(picked)


def lagrange(nodes: Sequence[float], x: float) -> list[float]:
    """Return the weights of (1), one a node."""
    return [
        math.prod(((x - other) / (node - other) for other in nodes if other != node), start=1.0)
        for node in nodes
    ]
