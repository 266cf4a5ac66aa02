"""Maps in closed form that bring rows near to targets: A = I + W for x A."""

import torch
from jaxtyping import Float
from torch import Tensor


def ridge_map(
    x: Float[Tensor, "n d"], target: Float[Tensor, "n d"], weight: float
) -> Float[Tensor, "d d"]:
    """Return W = A - I of the least squares min_A |x A - target|^2 + weight |A - I|^2."""
    rows, gap = x.double(), (target - x).double()
    eye = torch.eye(x.shape[1], dtype=rows.dtype, device=x.device)
    change: Tensor = torch.linalg.solve(rows.mT @ rows + weight * eye, rows.mT @ gap)
    return change.to(x)


def procrustes_map(x: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Return W = A - I of the rotation A that brings x closest to target.

    Directions that no shot speaks of are turned as little as possible: a small multiple of the
    identity is added before the decomposition.
    """
    eye = torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    u, _, vh = torch.linalg.svd(x.mT.double() @ target.double() + 1e-3 * eye)
    change: Tensor = u @ vh - eye
    return change.to(x)
