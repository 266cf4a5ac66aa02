"""Maps A in closed form that bring rows x A near to targets."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

RANK = 1e-10
"""Share of the largest singular value below which one is rounding."""


def ridge_map(
    x: Float[Tensor, "n d"], target: Float[Tensor, "n d"], weight: float
) -> Float[Tensor, "d d"]:
    """Return W = A - I of the least squares min_A |x A - target|^2 + weight |A - I|^2."""
    rows, gap = x.double(), (target - x).double()
    return ridge_change(rows.mT @ rows, rows.mT @ gap, weight).to(x)


def ridge_change(
    moments: Float64[Tensor, "d d"], cross: Float64[Tensor, "d d"], weight: float | Tensor
) -> Float64[Tensor, "d d"]:
    """Return W of `ridge_map` from the products x^T x and x^T (target - x)."""
    eye = torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    change: Tensor = torch.linalg.solve(moments + weight * eye, cross)
    return change


def procrustes_map(x: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Return W = A - I of the rotation A that brings x closest to target.

    Directions that no shot speaks of are turned as little as possible: a small multiple of the
    identity is added before the decomposition.
    """
    eye = torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    u, _, vh = torch.linalg.svd(x.mT.double() @ target.double() + 1e-3 * eye)
    change: Tensor = u @ vh - eye
    return change.to(x)


def rotation(
    x: Float[Tensor, "n d"],
    target: Float[Tensor, "n d"],
    weight: Float[Tensor, " n"] | None = None,
) -> Float64[Tensor, "d d"]:
    """Return the rotation Q (or reflection) that brings x Q closest to target.

    Directions that no row speaks of are turned as little as possible: there Q is the orthogonal map
    nearest to the identity, so that Q is unique.

    Args:
        x: Rows.
        target: What each row should be turned to.
        weight: Weight of each row; None is 1 everywhere.

    Example:
        >>> x = torch.tensor([[1.0, 0.0, 0.0]])
        >>> rotation(x, torch.tensor([[0.0, 1.0, 0.0]])).round(decimals=6)[0].abs().tolist()
        [0.0, 1.0, 0.0]
    """
    rows = x.double() if weight is None else weight.double()[:, None] * x.double()
    u, s, vh = torch.linalg.svd(rows.mT @ target.double())
    rank = int((s > RANK * s[0]).sum())
    free, onto = u[:, rank:], vh[rank:]
    a, _, bh = torch.linalg.svd(free.mT @ onto.mT)
    turn: Tensor = u[:, :rank] @ vh[:rank] + free @ (a @ bh) @ onto
    return turn
