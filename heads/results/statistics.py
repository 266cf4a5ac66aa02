"""Confidence intervals: over seeds crossed with queries, over queries, or over independent draws.

All seeds of a run answer the same queries, so a mean over both varies with either. With D
the correct answers (or differences, or pseudo-values), R seeds and n queries:

    MS_r = n sum_r (D_r. - m)^2 / (R-1)       MS_q = R sum_q (D_.q - m)^2 / (n-1)
    MS_e = sum_rq (D_rq - D_r. - D_.q + m)^2 / ((R-1)(n-1))
    V    = max(MS_r + MS_q - MS_e, MS_r, MS_q) / (R n)                                      (1)
    df   = (R n V)^2 / (MS_r^2/(R-1) + MS_q^2/(n-1) + MS_e^2/((R-1)(n-1)))                  (2)
    half = max(t_df sqrt(V + V_0), t_{R-1} sqrt(MS_r / (R n)))                              (3)

(1) is the variance of the mean under two crossed random effects, (2) Satterthwaite's degrees of
freedom, not below the fewer of R-1 and n-1. The second part of (3), Student's t over the seeds, is
wider where few draws cause most of the variance, because (2) is then estimated too high. V_0 is the
variance added by z^2 pseudo-queries, spread evenly over the possible outcomes (after Agresti &
Coull), so that identical answers do not give an interval of width 0. benchmarks/coverage.py
measures the coverage of these intervals.

Reference: Satterthwaite, Biometrics Bulletin 2, 1946; Searle, Casella & McCulloch, Variance
Components, 1992; Agresti & Coull, Am. Stat. 52, 1998; Holm, Scand. J. Stat. 6, 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import stdtr, stdtrit

LEVEL = 0.05
"""Significance level of the tests; intervals have confidence 1 - LEVEL."""
Z2 = float(stdtrit(np.inf, 1 - LEVEL / 2)) ** 2

CORRECT = (0.0, 1.0)
"""Outcomes of one answer: wrong or correct."""
DIFFERENCES = (-1.0, 0.0, 0.0, 1.0)
"""Differences of two answers: only the other correct, both wrong, both correct, only this one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Means with their 95 % intervals; arrays over the batch."""

    mean: Float64[np.ndarray, "*b"]
    half: Float64[np.ndarray, "*b"]
    """Half-width of the interval."""
    p: Float64[np.ndarray, "*b"]
    """Two-sided p-value of a mean of 0; below LEVEL where the interval excludes 0."""


def of_queries(
    values: Float[np.ndarray, "*b r n"],
    *,
    outcomes: Sequence[float] = CORRECT,
    size: float | Float64[np.ndarray, "*b"] | None = None,
) -> Estimate:
    """Estimate the mean of R heads on the same n queries; with one head, of that head.

    Args:
        values: Contribution of each query: correct (0 or 1), a difference of two, or a
            pseudo-value. n is two or more.
        outcomes: Possible values.
        size: Effective number of queries; None is n.
    """
    r, n = values.shape[-2:]
    if r == 1:
        return of_draws(values[..., 0, :], outcomes=outcomes, size=size)
    rows = values.mean(axis=-1, dtype=np.float64)
    columns = values.mean(axis=-2, dtype=np.float64)
    mean = np.asarray(rows.mean(axis=-1))
    total = np.square(values, dtype=np.float64).sum(axis=(-2, -1)) - r * n * mean**2
    of_rows = n * np.square(rows - mean[..., None]).sum(axis=-1)
    of_columns = r * np.square(columns - mean[..., None]).sum(axis=-1)
    rest = np.maximum(total - of_rows - of_columns, 0.0)
    ms_r, ms_q, ms_e = of_rows / (r - 1), of_columns / (n - 1), rest / ((r - 1) * (n - 1))
    v = np.maximum(np.maximum(ms_r + ms_q - ms_e, ms_r), ms_q)
    below = ms_r**2 / (r - 1) + ms_q**2 / (n - 1) + ms_e**2 / ((r - 1) * (n - 1))
    # (2) falls below either part's own where MS_e, by chance, is the largest of the three
    df = np.divide(v**2, below, out=np.full_like(v, n - 1), where=below > 0)
    df = np.maximum(df, min(r, n) - 1)
    added = pseudo_query_variance(mean, outcomes, float(n) if size is None else size)
    crossed = _student(mean, v / (r * n) + added, df)
    seeds = _student(mean, ms_r / (r * n), r - 1.0)
    wider = np.maximum(crossed.half, seeds.half)
    return Estimate(mean, np.asarray(wider), np.asarray(np.maximum(crossed.p, seeds.p)))


def of_draws(
    values: Float[np.ndarray, "*b k"],
    *,
    outcomes: Sequence[float] = CORRECT,
    size: float | Float64[np.ndarray, "*b"] | None = None,
) -> Estimate:
    """Estimate the mean of two or more independent draws by Student's t; arguments as above."""
    k = values.shape[-1]
    mean = np.asarray(values.mean(axis=-1, dtype=np.float64))
    variance = values.var(axis=-1, ddof=1, dtype=np.float64) / k
    added = pseudo_query_variance(mean, outcomes, float(k) if size is None else size)
    return _student(mean, variance + added, k - 1.0)


def pseudo_query_variance(
    mean: Float64[np.ndarray, "*b"],
    outcomes: Sequence[float],
    size: float | Float64[np.ndarray, "*b"],
) -> Float64[np.ndarray, "*b"]:
    """Return V_0 of (3), the variance added by z^2 pseudo-queries, evenly of each outcome."""
    squared = np.stack([np.square(outcome - mean) for outcome in outcomes]).mean(axis=0)
    return np.asarray(Z2 * squared / np.square(size))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method, which controls the family-wise error rate."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in corrected]


def _student(mean: np.ndarray, variance: np.ndarray | float, df: np.ndarray | float) -> Estimate:
    error = np.sqrt(variance)
    # without variance a mean other than 0 has p = 0
    t = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0.0, np.inf), where=error > 0)
    half = stdtrit(df, 1 - LEVEL / 2) * error
    return Estimate(mean, np.asarray(half), np.asarray(2 * stdtr(df, -t)))
