"""How far stated probabilities are from observed frequencies.

    ECE = sum_b  n_b / n  |accuracy_b - confidence_b|

over bins b of the probability of the predicted class. Temperatures are in `heads.ops.pooling`.

Reference: Guo et al., On Calibration of Modern Neural Networks, ICML 2017; their 15 equal bins.
"""

from jaxtyping import Bool, Float
from torch import Tensor

BINS = 15
"""Bins of equal width, (low, high] but for the first, which holds 0 as well."""


def expected_calibration_error(
    confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"], bins: int = BINS
) -> float:
    """Return the expected calibration error, in [0, 1].

    Args:
        confidence: Probability of the predicted class of each row, in [0, 1].
        correct: Whether the prediction was right.
        bins: Number of bins.

    Example:
        >>> import torch
        >>> confidence, correct = torch.tensor([0.75, 0.75]), torch.tensor([True, False])
        >>> expected_calibration_error(confidence, correct)
        0.25
    """
    if not len(confidence):
        return 0.0
    p = confidence.double()
    bin_of = ((p * bins).ceil().long() - 1).clamp(0, bins - 1)
    gap = p.new_zeros(bins).index_add_(0, bin_of, correct.double() - p)
    return float(gap.abs().sum()) / len(p)
