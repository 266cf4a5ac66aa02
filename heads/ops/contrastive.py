"""Losses that compare a row with rows or texts of its own and of other classes.

Supervised contrastive:

    L_b = -1/|P(b)| sum_{p in P(b)} log( exp(h_b . h_p / tau) / sum_{a != b} exp(h_b . h_a / tau) )

    h [b d] rows, unit            P(b) the rows that b is compared with and that share its class

Reference: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv:2004.11362, eq. 2.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.ops.algebra import is_class


def contrast(
    h: Float[Tensor, "b d"],
    others: Bool[Tensor, "b b"],
    y: Int64[Tensor, " b"],
    tau: float | Tensor,
) -> Float[Tensor, " b"]:
    """Return L_b of each row; 0 where it has no positive.

    Args:
        h: Rows.
        others: Which rows each is compared with.
        y: Class of each row.
        tau: Temperature.
    """
    scores = h @ h.mT / tau
    log_share = scores - scores.masked_fill(~others, -torch.inf).logsumexp(-1, keepdim=True)
    positives = (others & (y[:, None] == y[None])).to(h)
    return -(positives * log_share).sum(-1) / positives.sum(-1).clamp_min(1)


def triplet(cosine: Float[Tensor, "n c"], y: Tensor, margin: float | Tensor) -> Float[Tensor, " n"]:
    """Return max(0, cosine to the closest wrong text - cosine to the own text + margin) a row.

    Args:
        cosine: Of each row and text.
        y: Class of each row.
        margin: By how much the own text should be closer.
    """
    own = is_class(y, cosine.shape[-1])
    right = (cosine * own).sum(-1)
    wrong = cosine.masked_fill(own, -2.0).amax(-1)
    return F.relu(wrong - right + margin)
