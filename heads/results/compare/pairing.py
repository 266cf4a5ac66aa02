"""The paired difference of two runs: the same queries, the same draws of the shots.

Runs are paired over the seeds that both have. Where no shots were drawn (zero-shot), or where every
seed gives the same shots, the answers are used for every seed. If two runs cannot be paired, the
error says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int

from featcache.errors import UsageError
from featcache.wording import Argument
from heads.results import statistics
from heads.results.metrics import Counts
from heads.results.record import LISTS, IntervalOf, Predictions, Result, digest_labels

Word = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A measure of one run minus that of another on the same queries, as a fraction."""

    mean: float
    low: float
    high: float
    """The 95 % interval, not adjusted for how many differences a table has."""
    p: float
    """Two-sided, of no difference; not adjusted either."""
    over: IntervalOf
    seeds: tuple[int, ...] | None = None
    """The seeds that were paired, where one of the runs has others besides."""


def words(differences: Sequence[Difference | None]) -> list[Word | None]:
    """Classify each difference of a table after Holm's correction over all of them."""
    there = [d for d in differences if d is not None]
    corrected = iter(statistics.holm([d.p for d in there]))
    return [None if d is None else _word(d, next(corrected)) for d in differences]


def _word(difference: Difference, p: float) -> Word:
    if p >= statistics.LEVEL:
        return "no difference shown"
    return "better" if difference.mean > 0 else "worse"


def queries_of(result: Result) -> str:
    """Return the digest of a run's queries with their labels.

    Records made before labels joined the digest get it from the labels that lie beside them;
    without these they keep their own digest, which no newer record has.
    """
    if "-" in result.ids or result.predictions is None:
        return result.ids
    return f"{result.ids}-{digest_labels(result.predictions.labels)}"


def paired_difference(ours: Result, other: Result, metric: str = "top1") -> Difference:
    """Compare two runs query by query.

    Args:
        ours: A run.
        other: The run that it is compared with.
        metric: top1, balanced_accuracy or macro_f1; the latter by the queries' pseudo-values.

    Raises:
        UsageError: If the runs answered different queries, have no draw of the shots in common or
            kept no predictions.
    """
    a, b = _answers(ours), _answers(other)
    if queries_of(ours) != queries_of(other) or a.labels.shape[1] != b.labels.shape[1]:
        raise UsageError(
            f"Runs {ours.run} and {other.run} answered different queries; train both on the same "
            f"data set and split."
        )
    rows, others, seeds = _common(ours, other)
    one = _measured(a.predicted[rows], a.labels[rows], metric)
    two = _measured(b.predicted[others], b.labels[others], metric)
    return _difference(one, two, LISTS.get(ours.protocol), seeds)


def check_not_repeated(ours: Result, other: Result) -> None:
    """Refuse to compare a method with itself, as equal seeds give equal answers.

    Equal answers of different methods are a difference of 0.

    Raises:
        UsageError: If both are runs of one method and its settings, and their answers are equal; or
            as `paired_difference`.
    """
    if (ours.method, ours.variant) != (other.method, other.variant):
        return
    a, b = _answers(ours), _answers(other)
    rows, others, seeds = _common(ours, other)
    if np.array_equal(a.predicted[rows], b.predicted[others]):
        over = f" for {seeds_text(seeds)}" if seeds else ""
        raise UsageError(f"The same answers as the reference{over}: no comparison, not counted.")


def difference_to_zero_shot(result: Result, metric: str = "top1") -> Difference:
    """Compare a run with the zero-shot answers kept beside it; `metric` as `paired_difference`.

    Raises:
        UsageError: If there are none.
    """
    answers = _answers(result)
    if answers.zero_shot is None:
        raise UsageError(f"No zero-shot answers: '{result.dataset}' has no class texts.")
    one = _measured(answers.predicted, answers.labels, metric)
    two = _measured(answers.zero_shot, answers.labels, metric)
    return _difference(one, two, LISTS.get(result.protocol), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A measure of some answers, and what each query contributes to it."""

    whole: Float64[np.ndarray, " r"]
    each: Float64[np.ndarray, "r n"]
    """Correct answers for top-1; pseudo-values for a mean over classes."""
    size: float
    """Effective number of queries of a repetition."""
    answered: float
    """Number of queries of all repetitions."""


def _measured(
    predicted: Int[np.ndarray, "r n"], labels: Int[np.ndarray, "r n"], metric: str
) -> _Measured:
    counted = Counts.of(predicted, labels, 1 + int(max(predicted.max(), labels.max())))
    is_top1 = metric == "top1"
    return _Measured(
        whole=np.asarray(getattr(counted, metric)),
        each=counted.is_correct.astype(float) if is_top1 else counted.pseudo_values()[metric],
        size=float(labels.shape[1]) if is_top1 else float(counted.class_size.mean()),
        answered=float((labels >= 0).sum()),
    )


def _answers(result: Result) -> Predictions:
    if result.predictions is None:
        raise UsageError(
            f"Run {result.run} has no stored predictions; train it again to compare it."
        )
    return result.predictions


def _common(ours: Result, other: Result) -> tuple[list[int], list[int], tuple[int, ...] | None]:
    """Return which repetitions of each are paired, and their seeds where some are left out."""
    r, s = ours.repetitions, other.repetitions
    if ours.protocol in LISTS:  # the digest is that of the list
        return list(range(r)), list(range(s)), None
    if _undrawn(ours):
        return [0] * s, list(range(s)), None
    if _undrawn(other):
        return list(range(r)), [0] * r, None
    if _one_draw(ours) and _one_draw(other):
        return [0], [0], None
    our_seeds, their_seeds = ours.seeds[:r], other.seeds[:s]
    common = [seed for seed in our_seeds if seed in their_seeds]
    if not common:
        raise UsageError(
            f"No seed in common: {ours.method} has {seeds_text(our_seeds)}, {other.method} "
            f"{seeds_text(their_seeds)}; train both with the same ",
            Argument("seeds"),
            ".",
        )
    all_of_both = len(common) == r == s
    return (
        [our_seeds.index(seed) for seed in common],
        [their_seeds.index(seed) for seed in common],
        None if all_of_both else tuple(common),
    )


def _undrawn(result: Result) -> bool:
    """Tell whether no shots were drawn, so that the answers are those of every seed."""
    return result.shots == 0 and result.repetitions == 1


def _one_draw(result: Result) -> bool:
    """Tell whether every seed gives the same shots."""
    is_whole = result.shots is None if result.support is None else result.support.whole
    return result.repetitions == 1 and (result.stored_draw or is_whole)


def _difference(
    one: _Measured, two: _Measured, draws: IntervalOf | None, seeds: tuple[int, ...] | None
) -> Difference:
    """Estimate a difference: over the draws of a list, else over seeds and queries."""
    gain = one.each - two.each  # [r n]
    r, n = gain.shape
    outcomes = statistics.DIFFERENCES
    over: IntervalOf
    if draws is not None and r > 1:
        over = draws
        gains = one.whole - two.whole
        estimate = statistics.of_draws(gains, outcomes=outcomes, size=one.answered)
    elif n > 1:
        over = "queries" if r == 1 else "repetitions and queries"
        estimate = statistics.of_queries(gain, outcomes=outcomes, size=one.size)
    else:
        raise UsageError("A difference needs two queries or more; add images.")
    mean, half = float(estimate.mean), float(estimate.half)
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Difference(mean=mean, low=low, high=high, p=float(estimate.p), over=over, seeds=seeds)


def seeds_text(seeds: Sequence[int]) -> str:
    """Name seeds: `seed 1`, `seeds 1-3`, `seeds 1, 4`."""
    ordered = sorted(seeds)
    parts: list[list[int]] = []
    for seed in ordered:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    named = [str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts]
    return f"seed{'s' if len(ordered) > 1 else ''} {', '.join(named)}"
