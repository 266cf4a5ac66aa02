"""Pooling the probabilities of several classifiers, and the weights and temperatures for it.

    mean        log sum_m w_m p_m          linear opinion pool
    log         sum_m w_m log p_m          logarithmic opinion pool, up to a constant of each row

Both give logits whose softmax is the pooled distribution.

References: Genest and Zidek, Combining Probability Distributions, Statistical Science 1986 (both
pools). Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004 (`greedy_weights`).
Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (`temperature`). Platt 1999 (its
smoothed targets).
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

OCTAVES = 30.0
"""Temperatures from 2**-30 to 2**30: logits of any method."""
HALVINGS = 60
"""Bisections of that range; the last bracket is narrower than float64 resolves."""


def mean_pool(log_p: Float[Tensor, "*m n c"], weights: Float[Tensor, "*m"]) -> Float[Tensor, "n c"]:
    """Return the logarithm of the weighted mean of probabilities.

    Args:
        log_p: Log-probabilities of each classifier.
        weights: At least 0, sum 1.

    Example:
        >>> log_p = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).log()
        >>> mean_pool(log_p, torch.tensor([0.5, 0.5])).exp()
        tensor([[0.7000, 0.3000]])
    """
    return torch.logsumexp(log_p + weights.log()[:, None, None], dim=0)


def log_pool(log_p: Float[Tensor, "*m n c"], weights: Float[Tensor, "*m"]) -> Float[Tensor, "n c"]:
    """Return the weighted mean of log-probabilities, normalised; arguments as `mean_pool`.

    Example:
        >>> log_p = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).log()
        >>> log_pool(log_p, torch.tensor([0.5, 0.5])).exp()
        tensor([[0.7500, 0.2500]])
    """
    return torch.log_softmax((weights[:, None, None] * log_p).sum(0), dim=-1)


def temperature(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"], *, smooth: bool = True
) -> float:
    """Return the T at which softmax(logits / T) has the smallest cross-entropy with the labels.

    The targets are smoothed: 1 / (n + 2) of each is spread over all classes. Otherwise T would be 0
    where every row is answered correctly. The cross-entropy is convex in 1 / T, so its slope is
    bisected.

    Args:
        logits: Finite, of rows that the classifier was not trained on.
        labels: Their classes.
        smooth: Whether the targets are smoothed; else as Guo et al. have it.

    Returns:
        T above 0; 1 where no T is better than another (equal logits in every row).

    Example:
        >>> logits = torch.tensor([[20.0, 0.0], [20.0, 0.0], [0.0, 20.0], [0.0, 20.0]])
        >>> right = temperature(logits, torch.tensor([0, 0, 1, 1]))
        >>> half = temperature(logits, torch.tensor([0, 0, 1, 0]))
        >>> right < half
        True
    """
    z = logits.double()
    z = z - z.mean(dim=-1, keepdim=True)
    spread = float(z.abs().max()) if len(z) else 0.0
    if spread == 0:
        return 1.0
    z = z / spread
    kept = 1 - 1 / (len(z) + 2) if smooth else 1.0
    target = kept * z.gather(1, labels[:, None])[:, 0].mean()  # the mean of a row of z is 0
    low, high = -OCTAVES, OCTAVES
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected = (torch.softmax(z * 2.0**middle, dim=-1) * z).sum(-1).mean()
        low, high = (low, middle) if bool(expected > target) else (middle, high)
    return float(spread / 2.0**low)


def greedy_weights(
    log_p: Float[Tensor, "*m n c"], labels: Int64[Tensor, " n"], rounds: int
) -> Float[Tensor, "*m"]:
    """Return weights by forward selection with replacement (Caruana et al. 2004).

    Each round adds the classifier whose addition gives the mean of all chosen ones the smallest
    cross-entropy; one may be chosen again and so gains weight. The best of all rounds is returned,
    of equals the first.

    Args:
        log_p: Log-probabilities of each classifier on rows that it was not trained on.
        labels: Classes of these rows.
        rounds: Number of additions.

    Returns:
        Weights of the type of `log_p`, at least 0, sum 1.

    Example:
        >>> good, bad = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.8]])
        >>> greedy_weights(torch.stack([bad, good]).log(), torch.tensor([0]), 5)
        tensor([0., 1.])
    """
    at_label = log_p.double().gather(2, labels.expand(len(log_p), -1)[..., None])[..., 0].exp()
    count = at_label.new_zeros(len(at_label))  # [m]
    total = torch.zeros_like(at_label[0])  # [n]
    best, weights = -torch.inf, count
    for number in range(1, rounds + 1):
        # only the probability of the label matters to the cross-entropy
        score = ((total + at_label) / number).clamp_min(torch.finfo(torch.float64).tiny).log()
        chosen = int(score.mean(dim=1).argmax())
        total, count = total + at_label[chosen], count.clone()
        count[chosen] += 1
        if float(score[chosen].mean()) > best:
            best, weights = float(score[chosen].mean()), count / number
    return weights.to(log_p.dtype)
