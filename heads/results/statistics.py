"""How sure a mean is: of seeds crossed with queries, of queries alone, or of independent draws.

All seeds of a run are judged on the same queries, so a mean over both varies with either. With D
the right answers (or differences, or pseudo-values), R seeds and n queries:

    MS_r = n sum_r (D_r. - m)^2 / (R-1)       MS_q = R sum_q (D_.q - m)^2 / (n-1)
    MS_e = sum_rq (D_rq - D_r. - D_.q + m)^2 / ((R-1)(n-1))
    V    = max(MS_r + MS_q - MS_e, MS_r, MS_q) / (R n)                                      (1)
    df   = (R n V)^2 / (MS_r^2/(R-1) + MS_q^2/(n-1) + MS_e^2/((R-1)(n-1)))                  (2)
    half = max(t_df sqrt(V + V_0), t_{R-1} sqrt(MS_r / (R n)))                              (3)

(1) is the variance of the mean under two crossed random effects, (2) Satterthwaite's degrees of
freedom, not below the fewer of R-1 and n-1. The second part of (3), Student's t over the seeds, is
wider where the draws matter most and are few, for there (2) is estimated too high. V_0 is what z^2
imaginary queries would add, spread evenly over what an answer can be (after Agresti & Coull):
answers that all agree are not certainty. benchmarks/coverage.py measures how often these hold.

Reference: Satterthwaite, Biometrics Bulletin 2, 1946; Searle, Casella & McCulloch, Variance
Components, 1992; Agresti & Coull, Am. Stat. 52, 1998; Holm, Scand. J. Stat. 6, 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import stdtr, stdtrit

LEVEL = 0.05
"""Intervals are of 1 - LEVEL, words of LEVEL."""
Z2 = float(stdtrit(np.inf, 1 - LEVEL / 2)) ** 2

HITS = (0.0, 1.0)
"""What one answer can count: wrong or right."""
DIFFERENCES = (-1.0, 0.0, 0.0, 1.0)
"""What two answers to one query can differ by: one right, both wrong, both right, the other."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval; arrays over what was estimated at once."""

    mean: Float64[np.ndarray, "*b"]
    half: Float64[np.ndarray, "*b"]
    """Half-width of the interval."""
    p: Float64[np.ndarray, "*b"]
    """Two-sided, of the mean being 0; below LEVEL where the interval leaves out 0."""


def of_queries(
    values: Float[np.ndarray, "*b r n"],
    *,
    outcomes: Sequence[float] = HITS,
    size: float | Float64[np.ndarray, "*b"] | None = None,
) -> Estimate:
    """Estimate the mean of R heads on the same n queries; with one head, of that head.

    Args:
        values: What each query adds to the mean: hits, differences of hits, or pseudo-values.
            n is two or more.
        outcomes: What one value can be.
        size: So many queries of equal weight would tell as much; None is n.
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
    added = imaginary(mean, outcomes, float(n) if size is None else size)
    crossed = _student(mean, v / (r * n) + added, df)
    seeds = _student(mean, ms_r / (r * n), r - 1.0)
    wider = np.maximum(crossed.half, seeds.half)
    return Estimate(mean, np.asarray(wider), np.asarray(np.maximum(crossed.p, seeds.p)))


def of_draws(
    values: Float[np.ndarray, "*b k"],
    *,
    outcomes: Sequence[float] = HITS,
    size: float | Float64[np.ndarray, "*b"] | None = None,
) -> Estimate:
    """Estimate the mean of two or more independent draws by Student's t; arguments as above."""
    k = values.shape[-1]
    mean = np.asarray(values.mean(axis=-1, dtype=np.float64))
    variance = values.var(axis=-1, ddof=1, dtype=np.float64) / k
    added = imaginary(mean, outcomes, float(k) if size is None else size)
    return _student(mean, variance + added, k - 1.0)


def imaginary(
    mean: Float64[np.ndarray, "*b"],
    outcomes: Sequence[float],
    size: float | Float64[np.ndarray, "*b"],
) -> Float64[np.ndarray, "*b"]:
    """Return V_0 of (3): what z^2 more queries, evenly of each outcome, add to the variance."""
    apart = np.stack([np.square(outcome - mean) for outcome in outcomes]).mean(axis=0)
    return np.asarray(Z2 * apart / np.square(size))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that no true null falls in LEVEL of all families."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in corrected]


def _student(mean: np.ndarray, variance: np.ndarray | float, df: np.ndarray | float) -> Estimate:
    error = np.sqrt(variance)
    # where nothing varies, a mean other than 0 is surely not 0
    t = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0.0, np.inf), where=error > 0)
    half = stdtrit(df, 1 - LEVEL / 2) * error
    return Estimate(mean, np.asarray(half), np.asarray(2 * stdtr(df, -t)))
