"""Rows that are in another set of rows, too: the same image, cached once or twice."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SAME = 1e-5
"""Largest distance of two unit rows of one image; float32 rounds to 1e-7 for each of d numbers."""
PAIRS = 2**20
"""Pairs of rows that are compared at once."""


def in_both(rows: Float[Tensor, "n d"], others: Float[Tensor, "m d"]) -> Bool[Tensor, " n"]:
    """Mark the rows that are among others, too.

    Equal rows have equal projections onto a line. Only pairs whose projections agree are compared,
    which takes n log m and little more where the rows are spread.

    Args:
        rows: Unit rows.
        others: Unit rows.

    Example:
        >>> in_both(torch.eye(3), torch.eye(3)[1:])
        tensor([False,  True,  True])
    """
    found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    if not len(rows) or not len(others):
        return found
    d = rows.shape[1]
    seeded = torch.Generator().manual_seed(0)
    line = torch.randn(d, generator=seeded, dtype=torch.float64)
    line = (line / line.norm()).to(rows.device)
    at, (known, order) = rows.double() @ line, (others.double() @ line).sort()
    start = torch.searchsorted(known, at - SAME)
    stop = torch.searchsorted(known, at + SAME, right=True)
    left = torch.nonzero(start < stop)[:, 0]
    step = 0
    while len(left):
        for some in torch.split(left, max(1, PAIRS // d)):
            near = others[order[start[some] + step]]
            found[some] |= (rows[some] - near).norm(dim=-1) <= SAME
        step += 1
        left = left[(start[left] + step < stop[left]) & ~found[left]]
    return found
