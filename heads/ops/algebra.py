"""Small tensor algebra that several methods share; every function is safe under `torch.func.vmap`.

Labels are compared or used as addresses out of place: no boolean masks, no one_hot, no unique.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.ops.torch_private import may_be_stacked


def is_class(labels: Int64[Tensor, " n"], classes: int) -> Bool[Tensor, "n c"]:
    """Mark each row's own class; a label of -1 marks none."""
    return labels[:, None] == torch.arange(classes, device=labels.device)


def sum_by_label(
    values: Float[Tensor, "n m"], labels: Int64[Tensor, " m"], *, classes: int
) -> Float[Tensor, "n c"]:
    """Sum the columns that share a label: values V for V one-hot, without building V.

    Whole columns are added: five times faster where they lie together in memory, as `affinities`
    leaves them. For labels that differ between stacked tasks V is built: `index_add` would go task
    by task.
    """
    if may_be_stacked(labels):
        return values @ is_class(labels, classes).to(values)
    empty = values.new_zeros(classes, values.shape[0])
    return empty.index_add(0, labels, values.mT).mT


def with_votes(
    text: Float[Tensor, "n c"],
    votes: Float[Tensor, "n m"],
    labels: Int64[Tensor, " m"],
    alpha: Tensor | float,
) -> Float[Tensor, "n c"]:
    """Add the votes of labelled keys to the logits of the texts: text + alpha votes V, V one-hot.

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
    weights: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "n c"]:
    """Add the votes exp(-beta distance) of Tip-Adapter, arXiv:2207.09519, times their weights."""
    votes = torch.exp(-beta * distance)
    return with_votes(text, votes if weights is None else votes * weights, labels, alpha)


def affinities(x: Float[Tensor, "n d"], keys: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return x K^T, its columns each in one piece of memory."""
    return (keys @ x.mT).mT


def cosine_logits(x: Float[Tensor, "n d"], anchors: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
    """Return cosines of rows and anchors that need not be unit yet."""
    return F.normalize(x, dim=-1) @ F.normalize(anchors, dim=-1).mT


def weighted_mean(values: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Average rows by weight; padding has weight 0."""
    return (weight * values).sum() / weight.sum()


def cross_entropy(
    logits: Float[Tensor, "n c"], y: Int64[Tensor, " n"], weight: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the weighted mean of -log softmax at the labels."""
    return weighted_mean(F.cross_entropy(logits, y.clamp(min=0), reduction="none"), weight)


def largest_eigenvalue(x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return that of X^T X, from whichever of the two products of X is smaller."""
    product = x @ x.mT if len(x) < x.shape[1] else x.mT @ x
    values: Tensor = torch.linalg.eigvalsh(product.double())
    return values[-1].to(x)


def mean_cosine(rows: Float[Tensor, "b u d"], weight: Float[Tensor, "b u"]) -> Float[Tensor, ""]:
    """Return the mean cosine of two different unit rows among those of weight 1; others have 0."""
    n = weight.sum()
    total = (weight[..., None] * rows).sum((0, 1))
    return (total.square().sum() - n) / (n * (n - 1)).clamp_min(1)
