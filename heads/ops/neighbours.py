"""The nearest rows of unit rows, exactly, some rows at a time; works under `torch.func.vmap`."""

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
