"""Conformal prediction sets: scores of classes, the rank rule, and what few rows can promise.

A score s says how strange a class is for a row. With the scores S of m rows at their labels, a set
of coverage 1 - alpha has the classes with fewer than r smaller calibration scores:

    C(x) = {k : #{i : S_i < s_k(x)} < r},   r = ceil((m + 1) (1 - alpha))

which is s_k(x) <= the r-th smallest score; for r > m every class. Where calibration rows and x are
exchangeable, the label is in C(x) with probability 1 - alpha or more.

    lac    1 - p_k
    aps    the sum of the probabilities above p_k, and u p_k
    raps   aps + 0.001 max(0, rank of k - 1)

with u = 1, or u uniform in [0, 1], one a row. The sets of lac are the smallest on average, and may
be empty. With u = 1 nothing is random and no set of aps is empty, but sets are large where a
classifier is often sure and right: such rows have scores near 1 as well.

References: Vovk et al., Algorithmic Learning in a Random World, 2005 (the rank rule). Sadinle et
al., Least Ambiguous Set-Valued Classifiers, 2019 (lac). Romano et al., Classification with Valid
and Adaptive Coverage, NeurIPS 2020 (aps). Angelopoulos et al., Uncertainty Sets for Image
Classifiers using Conformal Prediction, ICLR 2021 (raps). The constants of raps are those of Silva-
Rodríguez et al., Conformal Prediction for Zero-Shot Models, CVPR 2025.
"""

import math
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

PENALTY, FREE = 0.001, 1
"""Penalty of raps for each rank, and how many ranks are free of it."""


def class_scores(
    p: Float[Tensor, "n c"], rule: str, u: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "n c"]:
    """Return the score of every class for every row.

    Args:
        p: Probabilities; float64 keeps apart those near 1.
        rule: One of `heads.ops.score_names.RULES`.
        u: Share of a class's own probability in aps and raps, one a row; None is 1.

    Example:
        >>> p = torch.tensor([[0.5, 0.25, 0.25]])
        >>> class_scores(p, "lac")
        tensor([[0.5000, 0.7500, 0.7500]])
        >>> class_scores(p, "aps")
        tensor([[0.5000, 0.7500, 1.0000]])
    """
    if rule == "lac":
        return 1 - p
    ordered, classes = p.sort(dim=-1, descending=True, stable=True)
    above = ordered.cumsum(-1)
    if u is not None:
        above = above - (1 - u[:, None]) * ordered
    if rule == "raps":
        ranks = torch.arange(1, p.shape[1] + 1, device=p.device, dtype=p.dtype)
        above = above + PENALTY * (ranks - FREE).clamp_min(0)
    return torch.empty_like(p).scatter_(1, classes, above)


def exact(share: float) -> Fraction:
    """Return a share as its decimal digits say, so that 0.55 of 100 is 55."""
    return Fraction(repr(float(share)))


def rank(rows: int, coverage: float) -> int:
    """Return ceil((rows + 1) coverage): which of the calibration scores bounds the sets.

    Args:
        rows: Number of calibration rows.
        coverage: In (0, 1).

    Returns:
        From 1; above `rows` where they are too few to promise the coverage.

    Example:
        >>> rank(19, 0.95), rank(18, 0.95)
        (19, 19)
    """
    return math.ceil((rows + 1) * exact(coverage))


def rows_needed(coverage: float) -> int:
    """Return the smallest number of calibration rows that can promise a coverage in (0, 1).

    Example:
        >>> rows_needed(0.95)
        19
    """
    share = exact(coverage)
    return math.ceil(share / (1 - share))


def most_promised(rows: int) -> float:
    """Return the largest coverage, rounded down to two digits, that some rows can promise.

    Example:
        >>> most_promised(17)
        0.94
    """
    return math.floor(100 * Fraction(rows, rows + 1)) / 100


def smaller(scores: Float64[Tensor, " m"], of: Float64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """Count the calibration scores that are smaller than each given score.

    Args:
        scores: Sorted, smallest first.
        of: Scores of rows, or of the classes of rows.

    Example:
        >>> smaller(torch.tensor([0.1, 0.5]).double(), torch.tensor([0.1, 0.3, 0.9]).double())
        tensor([0, 1, 2])
    """
    return torch.searchsorted(scores, of.contiguous(), right=False)


def within(below: Int64[Tensor, "*n"], rows: int, coverage: float) -> Bool[Tensor, "*n"]:
    """Tell which scores belong to a share of what calibration rows look like.

    Args:
        below: Number of smaller calibration scores, as `smaller` counts them.
        rows: Number of calibration rows.
        coverage: In (0, 1).
    """
    return below < rank(rows, coverage)


def cross_guarantee(rows: int, folds: int, coverage: float) -> float:
    """Return the coverage that sets of `folds` cross-fitted heads cannot fall below.

    With K folds and m rows it is 1 - 2 alpha - min(2 (1 - 1/K) / (m/K + 1), (1 - K/m) / (K + 1)).
    Source: Romano et al. 2020, theorem 2 (CV+), for folds of one size.

    Example:
        >>> round(cross_guarantee(200, 4, 0.9), 3)
        0.771
    """
    k, m = folds, rows
    slack = min(2 * (1 - 1 / k) / (m / k + 1), (1 - k / m) / (k + 1))
    return max(0.0, 1 - 2 * (1 - coverage) - slack)
