"""Kullback-Leibler divergences of all pairs of distributions, and ranges over pairs of rows."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

BLOCK = 128
"""Rows whose pairs with all others are held at once."""


def divergences(p: Float[Tensor, "n c"], q: Float[Tensor, "m c"]) -> Float[Tensor, "n m"]:
    """Return KL(p_i || q_j) in nats, from the logarithms of the distributions.

    Example:
        >>> p = torch.tensor([[0.5, 0.5]]).log()
        >>> q = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
        >>> divergences(p, q)
        tensor([[0.0000, 0.1438]])
    """
    mass = p.exp()
    return (mass * p).sum(-1, keepdim=True) - mass @ q.mT


def pair_range(
    values: Callable[[Int64[Tensor, " b"]], Float[Tensor, "b m"]], count: int, most: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the smallest and the largest value over pairs of two different rows.

    Args:
        values: Rows -> their values with all rows.
        count: Number of rows, 2 at least.
        most: Rows that are paired with all others, evenly spread; all where there are no more.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_range(lambda some: torch.cdist(x[some], x), 3, 3)
        (tensor(1.), tensor(3.))
    """
    step = max(1, -(-count // most))
    low: list[Tensor] = []
    high: list[Tensor] = []
    for some in torch.split(torch.arange(0, count, step), BLOCK):
        found = values(some)
        own = some.to(found.device)[:, None] == torch.arange(count, device=found.device)
        low.append(found.masked_fill(own, torch.inf).min())
        high.append(found.masked_fill(own, -torch.inf).max())
    return torch.stack(low).min(), torch.stack(high).max()
