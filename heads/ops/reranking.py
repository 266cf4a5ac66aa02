"""Losses that rank the text of a row's own class above those of other classes.

    rank_i    = mean over the k texts nearest to u_i of max(0, D_iy - D_ik + (1 - t_k . t_y) / 4)
    triplet_i = max(0, |h_i - t_y + e| - |h_i - t_n + e| + margin)

    h [n d] rows           u = h / |h|           t [c d] texts, unit       D_ik = |u_i - t_k|
    t_n   of the other texts that with the largest h_i . t_n               e = 1e-6

Reference: Ouali et al., Black Box Few-Shot Adaptation for Vision-Language models, ICCV 2023,
arXiv:2304.01752.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.ops.algebra import is_class

SMALLEST = 1e-12
"""Squared distance below which its root has no slope."""
EPS = 1e-6
"""Added to every difference, as torch's triplet loss does."""


def reranking(
    h: Float[Tensor, "n d"], texts: Float[Tensor, "c d"], y: Int64[Tensor, " n"], k: int = 3
) -> Float[Tensor, " n"]:
    """Return rank_i of each row.

    Args:
        h: Rows of any length.
        texts: Unit texts.
        y: Class of each row.
        k: Texts that a row is compared with; its own adds 0 if it is one of them.

    Example:
        >>> reranking(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), k=2)
        tensor([0., 0.])
    """
    cosine = F.normalize(h, dim=-1) @ texts.mT  # [n c]
    near = cosine.topk(min(k, texts.shape[0]), dim=-1).indices  # [n k]
    distance = (2 - 2 * cosine).clamp_min(SMALLEST).sqrt()
    own = distance.gather(-1, y[:, None])  # [n 1]
    alike = (texts[near] * texts[y][:, None]).sum(-1)  # [n k]
    hinge = F.relu(own - distance.gather(-1, near) + (1 - alike) / 4)
    return (hinge * (near != y[:, None])).mean(-1)


def hardest_triplet(
    h: Float[Tensor, "n d"],
    texts: Float[Tensor, "c d"],
    y: Int64[Tensor, " n"],
    margin: float | Tensor,
) -> Float[Tensor, " n"]:
    """Return triplet_i of each row.

    Args:
        h: Rows of any length, which counts.
        texts: Unit texts.
        y: Class of each row.
        margin: By how much the own text should be closer, in distance.

    Example:
        >>> hardest_triplet(torch.eye(2), torch.eye(2), torch.tensor([1, 0]), 0.1)
        tensor([1.5142, 1.5142])
    """
    wrong = (h @ texts.mT).masked_fill(is_class(y, texts.shape[0]), -torch.inf).argmax(-1)
    near, far = (torch.linalg.vector_norm(h - texts[at] + EPS, dim=-1) for at in (y, wrong))
    return F.relu(near - far + margin)
