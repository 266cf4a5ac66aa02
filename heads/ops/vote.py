"""The votes of a key-value cache of labelled rows, beside the logits of another classifier.

    logits = t + alpha V Y               V = exp(-beta D) in Tip-Adapter         (1)

    t [n c] logits of the texts          V [n m] votes of the keys
    D [n m] distances 1 - x K^T          Y [m c] one-hot labels of the keys

Reference: Zhang et al., Tip-Adapter, ECCV 2022, arXiv:2207.09519, eq. 5-6.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heads.ops.algebra import sum_by_label


def with_votes(
    text: Float[Tensor, "n c"],
    votes: Float[Tensor, "n m"],
    labels: Int64[Tensor, " m"],
    alpha: Tensor | float,
) -> Float[Tensor, "n c"]:
    """Add votes to the logits of the texts: (1) for any V.

    Example:
        >>> with_votes(torch.zeros(1, 2), torch.ones(1, 3), torch.tensor([0, 1, 1]), 0.5)
        tensor([[0.5000, 1.0000]])
    """
    return text + alpha * sum_by_label(votes, labels, classes=text.shape[-1])


def with_cache(
    text: Float[Tensor, "n c"],
    distance: Float[Tensor, "n m"],
    labels: Int64[Tensor, " m"],
    alpha: Tensor | float,
    beta: Tensor | float,
) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    return with_votes(text, torch.exp(-beta * distance), labels, alpha)
