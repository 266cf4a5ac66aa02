"""Weighing rows by a softmax: of their scores, of how close they are, of how sure they are."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

Pick = Literal["soft", "straight-through", "literal"]


def pick(
    scores: Float[Tensor, "*n m"],
    how: Pick,
    allowed: Bool[Tensor, "*k m"] | None = None,
) -> Float[Tensor, "*n m"]:
    """Weigh candidates so that the weights sum to 1.

    Args:
        scores: Logits of the candidates.
        how: `soft` is the softmax, `literal` its argmax, `straight-through` the argmax forwards and
            the softmax backwards.
        allowed: Candidates that may be picked; None is all.

    Example:
        >>> pick(torch.tensor([[0.0, 2.0]]), "literal")
        tensor([[0., 1.]])
    """
    if allowed is not None:
        scores = torch.where(allowed, scores, torch.finfo(scores.dtype).min)
    soft = scores.softmax(-1)
    if how == "soft":
        return soft
    places = torch.arange(scores.shape[-1], device=scores.device)
    hard = (scores.argmax(-1, keepdim=True) == places).to(soft)
    return hard if how == "literal" else hard + soft - soft.detach()


def pool_closest(
    rows: Float[Tensor, "n k d"], x: Float[Tensor, "n d"], share: float, tau: float | Tensor
) -> Float[Tensor, "n d"]:
    """Average the rows closest to x, closer ones with more weight; unit.

    Args:
        rows: Unit rows.
        x: Unit rows, what each set of rows is compared with.
        share: Share of the rows that count, one at least.
        tau: Temperature of the weights; large weighs all alike.
    """
    relevance = (rows @ x[..., None])[..., 0]  # [n k]
    top, where = relevance.topk(max(1, round(share * rows.shape[-2])), dim=-1)
    chosen = torch.take_along_dim(rows, where[..., None], dim=-2)
    weight = torch.softmax(top / tau, dim=-1)
    return F.normalize((weight[..., None] * chosen).sum(-2), dim=-1)


def confidence(
    rows: Float[Tensor, "n k d"], anchors: Float[Tensor, "c d"], sharpness: float | Tensor
) -> Float[Tensor, "n k"]:
    """Weigh rows by how close they are to any class: softmax_k(sharpness max_c p_k . A_c).

    Args:
        rows: Unit rows p.
        anchors: Unit class anchors A.
        sharpness: 0 weighs all alike; large leaves the row with the best class alone.

    Example:
        >>> rows = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
        >>> confidence(rows, torch.tensor([[1.0, 0.0]]), 5.0)
        tensor([[0.8808, 0.1192]])
    """
    return torch.softmax(sharpness * (rows @ anchors.mT).amax(-1), dim=-1)


def pool_confident(
    rows: Float[Tensor, "n k d"], anchors: Float[Tensor, "c d"], sharpness: float | Tensor
) -> Float[Tensor, "n d"]:
    """Average rows by their `confidence`; unit."""
    return F.normalize((confidence(rows, anchors, sharpness)[..., None] * rows).sum(-2), dim=-1)
