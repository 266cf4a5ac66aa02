"""The linear discriminant of Gaussian classes with one shared covariance.

    W = M P        b_c = log(1/c) - 1/2 mu_c P mu_c^T                      (1)
    P = d ((n - 1) S + tr(S) I)^+                                          (2)

    M [c d] class means mu_c      S [d d] covariance of the rows about their class means
    P [d d] precision after Kubokawa and Srivastava                n rows

Rows may have weights: means and S are weighted, and n is the sum of the weights, 2 at least. (2) is
solved, not inverted: the trace makes the matrix positive definite.
"""

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

ROUNDING = torch.finfo(torch.float32).eps ** 2
"""Mean squared distance to the class mean below which rows have no scatter but their rounding."""
CHUNK = 16384
"""Rows in float64 at a time."""


def discriminant(
    rows: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    classes: int,
    weights: Float[Tensor, " n"] | None = None,
) -> tuple[Float64[Tensor, "c d"], Float64[Tensor, " c"]]:
    """Solve (1) and (2) in float64.

    Args:
        rows: The rows.
        labels: Class of each row.
        classes: Number of classes; one without rows takes the mean of all.
        weights: Weight of each row, at least 0; None is 1 everywhere.

    Returns:
        W and b, zeros where the rows have no scatter.
    """
    (count, d), n = rows.shape, float(len(rows))
    own = torch.ones(count, 1, dtype=torch.float64, device=rows.device)
    if weights is not None:
        own = weights.double()[:, None]
        n = max(2.0, float(own.sum()))
    total = torch.zeros(classes, d, dtype=torch.float64, device=rows.device)
    for x, y, w in zip(*(torch.split(t, CHUNK) for t in (rows, labels, own)), strict=True):
        total.index_add_(0, y, w * x.double())
    counts = total.new_zeros(classes, 1).index_add_(0, labels, own)
    filled = torch.where(counts > 0, counts, 1)
    means = torch.where(counts > 0, total / filled, total.sum(0) / own.sum())  # [c d]
    scatter = total.new_zeros(d, d)  # (n - 1) S
    for x, y, w in zip(*(torch.split(t, CHUNK) for t in (rows, labels, own)), strict=True):
        centred = x.double() - means[y]
        scatter.addmm_(centred.mT, w * centred)
    trace = scatter.trace()
    if count < 2 or trace <= ROUNDING * n:
        return torch.zeros_like(means), means.new_zeros(classes)
    scatter.diagonal().add_(trace / (n - 1))
    factor = torch.linalg.cholesky(scatter)
    weight = d * torch.cholesky_solve(means.mT, factor).mT  # [c d]
    return weight, -math.log(classes) - (weight * means).sum(1) / 2


def log_posterior(
    rows: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    classes: int,
    weights: Float[Tensor, " n"] | None = None,
) -> tuple[Float64[Tensor, "c d"], Float64[Tensor, " c"]]:
    """Return (1) for P = (S + tr(S) / (n - 1) I)^-1, the shrunk covariance itself inverted.

    That P is (n - 1) / d times the one of (2), which leaves the order of the classes alone and
    makes the softmax of x W^T + b the posterior of the Gaussian classes: logits that can be added
    to those of another classifier.

    Args:
        rows: The rows.
        labels: Class of each row.
        classes: Number of classes; one without rows takes the mean of all.
        weights: Weight of each row, at least 0, not all 0; None is 1 everywhere.

    Returns:
        W and b, zeros where the rows have no scatter.

    Example:
        >>> rows = torch.tensor([[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]])
        >>> weight, offset = log_posterior(rows, torch.tensor([0, 0, 1, 1]), 2)
        >>> torch.softmax(torch.tensor([[2.0, 0.0]]).double() @ weight.mT + offset, dim=1)
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    weight, offset = discriminant(rows, labels, classes, weights)
    n = float(len(rows)) if weights is None else max(2.0, float(weights.double().sum()))
    factor, prior = (n - 1) / rows.shape[1], -math.log(classes)
    return factor * weight, torch.where(weight.any(), factor * (offset - prior) + prior, offset)


def nearest_mean(
    rows: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], classes: int
) -> tuple[Float64[Tensor, "c d"], Float64[Tensor, " c"]]:
    """Return (1) for P = I, which orders rows by their distance to the class means.

    Args:
        rows: The rows.
        labels: Class of each row.
        classes: Number of classes; one without rows takes the mean of all.

    Example:
        >>> weight, offset = nearest_mean(torch.eye(2), torch.tensor([1, 0]), 2)
        >>> (torch.eye(2).double() @ weight.mT + offset).argmax(1)
        tensor([1, 0])
    """
    total = torch.zeros(classes, rows.shape[1], dtype=torch.float64, device=rows.device)
    total.index_add_(0, labels, rows.double())
    counts = torch.bincount(labels, minlength=classes)[:, None]
    means = torch.where(counts > 0, total / counts.clamp_min(1), total.sum(0) / len(rows))
    return means, -means.square().sum(1) / 2
