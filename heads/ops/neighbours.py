"""The nearest rows of unit rows, exactly, some rows at a time; works under `torch.func.vmap`.

With w_ij the cosine where row j is one of the nearest of row i, else 0, the last two functions are
the products w^T z and w z, without building w.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SIMILARITIES = 64 * 2**20
"""Bytes of cosines held at a time; the whole n x n matrix never is."""


def neighbours(
    x: Float[Tensor, "n d"], among: Float[Tensor, "q d"], count: int, *, left_out: str = ""
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Find the largest cosines of each row and where they are.

    Args:
        x: Unit rows.
        among: Unit rows to find them in.
        count: How many.
        left_out: `self` where x is `among`: a row is no neighbour of its own; `first` leaves out
            the nearest of all, whatever it is.

    Example:
        >>> neighbours(torch.eye(2), torch.eye(2), 1)[1]
        tensor([[0],
                [1]])
    """
    each = max(1, SIMILARITIES // (among.shape[0] * among.element_size()))
    found = [
        _most_similar(part @ among.mT, i * each, count, left_out)
        for i, part in enumerate(torch.split(x, each))
    ]
    cosines, index = zip(*found, strict=True)
    return torch.cat(cosines), torch.cat(index)


def mean_of_neighbours(x: Float[Tensor, "n d"], count: int) -> Float[Tensor, "n d"]:
    """Average the rows closest to each row, itself left out; fewer where there are not as many.

    Args:
        x: Unit rows, two at least.
        count: How many.

    Example:
        >>> mean_of_neighbours(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 5)
        tensor([[0., 1.],
                [1., 0.]])
    """
    _, near = neighbours(x, x, min(count, len(x) - 1), left_out="self")
    total = torch.zeros_like(x)
    for k in range(near.shape[1]):  # not at once: [n k d] would be k times the rows
        total += x[near[:, k]]
    return total / near.shape[1]


def _most_similar(
    cosines: Float[Tensor, "b q"], start: int, count: int, left_out: str
) -> tuple[Float[Tensor, "b k"], Int64[Tensor, "b k"]]:
    if not left_out:
        largest = cosines.topk(count)
        return largest.values, largest.indices
    values, index = cosines.topk(count + 1)
    if left_out == "first":
        return values[:, 1:], index[:, 1:]
    own = start + torch.arange(cosines.shape[0], device=cosines.device)[:, None]
    values, kept = torch.where(index == own, -torch.inf, values).topk(count)
    return values, index.gather(1, kept)


def given_to_neighbours(
    z: Float[Tensor, "m c"], near: Int64[Tensor, "m k"], cosine: Float[Tensor, "m k"], n: int
) -> Float[Tensor, "n c"]:
    """Give each row's z, times the cosine, to its neighbours among n rows: w^T z."""
    total = z.new_zeros(n, z.shape[1])
    for k in range(near.shape[1]):
        total = total.index_add(0, near[:, k], cosine[:, k, None] * z)
    return total


def taken_from_neighbours(
    z: Float[Tensor, "n c"], near: Int64[Tensor, "m k"], cosine: Float[Tensor, "m k"]
) -> Float[Tensor, "m c"]:
    """Sum the z of each row's neighbours, times the cosine: w z."""
    total = z.new_zeros(near.shape[0], z.shape[1])
    for k in range(near.shape[1]):
        total = total + cosine[:, k, None] * z[near[:, k]]
    return total
