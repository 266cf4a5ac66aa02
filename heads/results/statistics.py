"""How sure a number is: Student's t over repetitions, bootstrap over queries, paired differences.

Repetitions are the unit where the draw of the shots differs between them; with one draw only the
queries vary, and resampling them says how much of a figure is luck of the test set. Resampling is
seeded: the same run always gets the same interval.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64

from featcache.errors import UsageError
from heads.results.record import EPISODIC, Predictions, Result

DRAWS = 1000
"""Bootstrap resamples; the half-width is then good to about 4 % of itself."""

Word = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Top-1 of one run minus top-1 of another on the same queries, as a fraction."""

    mean: float
    low: float
    high: float
    """The 95 % interval; equal to the mean where there was nothing to vary."""
    over: Literal["repetitions", "episodes", "queries"]

    @property
    def word(self) -> Word:
        """Say what the interval allows to say."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"


def t_quantile(df: int, level: float = 0.975) -> float:
    """Return Student's t quantile for a whole number of degrees of freedom, level in (0.5, 1)."""
    low, high = 0.0, 1.0
    while _t_cdf(high, df) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, df) < level else (low, middle)
    return (low + high) / 2


def t_half_width(values: Sequence[float]) -> float:
    """Return the 95 % half-width of the mean of two or more repetitions."""
    n = len(values)
    return t_quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion; sound where all or none of n are hits."""
    z = 1.959963984540054
    centre = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def bootstrap_half_width(
    measures: Callable[[Float64[np.ndarray, " n"]], Sequence[float]], n: int, *, seed: int = 0
) -> list[float]:
    """Return the 95 % half-width of each measure when n queries are drawn with replacement.

    Args:
        measures: From how often each query was drawn to the measures.
        n: Number of queries.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            measures(np.bincount(rng.integers(n, size=n), minlength=n).astype(float))
            for _ in range(DRAWS)
        ]
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [float(w) for w in (high - low) / 2]


def paired_difference(ours: Result, other: Result) -> Difference:
    """Compare two runs query by query.

    Raises:
        UsageError: If the runs answered different queries, drew different shots or kept no
            predictions.
    """
    a, b = ours.predictions, other.predictions
    if a is None or b is None:
        run = ours.run if a is None else other.run
        raise UsageError(f"Run {run} has no stored predictions; train it again to compare it.")
    if ours.ids != other.ids or a.labels.shape[1] != b.labels.shape[1]:
        raise UsageError(
            f"Runs {ours.run} and {other.run} answered different queries; train both on the same "
            f"data set and split."
        )
    if len(b.predicted) == 1:  # no shots were drawn for it: the same answers in every repetition
        b = _repeated(b, len(a.predicted))
    elif ours.seeds != other.seeds or a.labels.shape != b.labels.shape:
        raise UsageError(
            f"Runs {ours.run} and {other.run} drew different shots (seeds {list(ours.seeds)} and "
            f"{list(other.seeds)}); train both with the same --seeds."
        )
    found = _difference(a.predicted == a.labels, b.predicted == b.labels)
    return _of_episodes(found, ours)


def difference_to_zero_shot(result: Result) -> Difference | None:
    """Compare a run with the zero-shot answers kept beside it; None where there are none."""
    kept = result.predictions
    if kept is None or kept.zero_shot is None:
        return None
    found = _difference(kept.predicted == kept.labels, kept.zero_shot == kept.labels)
    return _of_episodes(found, result)


def _of_episodes(found: Difference, result: Result) -> Difference:
    if result.protocol == EPISODIC and found.over == "repetitions":
        return replace(found, over="episodes")
    return found


def _difference(ours: np.ndarray, other: np.ndarray) -> Difference:
    gain = ours.astype(float) - other.astype(float)  # [r n], each in {-1, 0, 1}
    if len(gain) > 1:
        per_repetition = gain.mean(axis=1)
        mean, half = float(per_repetition.mean()), t_half_width(per_repetition.tolist())
        return Difference(mean=mean, low=mean - half, high=mean + half, over="repetitions")
    row = gain[0]
    mean = float(row.mean())
    # only three values occur, so resampling rows is drawing their three counts
    counts = np.array([(row < 0).sum(), (row == 0).sum(), (row > 0).sum()])
    drawn = np.random.default_rng(0).multinomial(len(row), counts / len(row), size=10 * DRAWS)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / len(row), [0.025, 0.975])
    return Difference(mean=mean, low=float(low), high=float(high), over="queries")


def _repeated(kept: Predictions, repetitions: int) -> Predictions:
    return Predictions(
        predicted=kept.predicted.repeat(repetitions, axis=0),
        labels=kept.labels.repeat(repetitions, axis=0),
    )


def _t_cdf(t: float, df: int) -> float:
    """Return P(T <= t) for t >= 0 by the finite series for whole df (Abramowitz, Stegun 26.7)."""
    theta = math.atan2(t, math.sqrt(df))
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = df % 2 == 1
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return 0.5 + inside / 2
