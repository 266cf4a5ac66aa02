"""Which repetitions of two runs are paired, and why some are not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featcache.errors import UsageError
from heads.results.compare.pairing import (
    difference_to_zero_shot,
    paired_difference,
    queries_of,
    seeds_text,
    words,
)
from heads.results.record import EPISODIC, Predictions, Support, digest_labels

stats = pytest.importorskip("scipy.stats")


def run_of(record: Any, hits: np.ndarray, zero: np.ndarray | None = None, **fields: Any) -> Any:
    """Return a record whose answers are right where `hits` says so."""
    labels = np.zeros(hits.shape, dtype=np.int32)
    kept = Predictions(
        predicted=1 - hits.astype(np.int32),
        labels=labels,
        zero_shot=None if zero is None else 1 - zero.astype(np.int32),
    )
    fields.setdefault("seeds", tuple(range(len(hits))))
    return record(predictions=kept, zero_shot_top1=None, **fields)


def some(r: int, n: int = 100, right: float = 0.7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((r, n)) < right


def test_one_draw_is_compared_query_by_query(record: Any) -> None:
    a, b = np.zeros((1, 100), bool), np.zeros((1, 100), bool)
    a[0, :60], b[0, :50] = True, True
    d = paired_difference(run_of(record, a), run_of(record, b))
    assert d.mean == pytest.approx(0.1)
    assert (d.over, words([d])) == ("queries", ["better"])
    half = 1.984 * np.sqrt((0.1 - 0.01) / 99 + 3.8415 * (0.5 + 0.01) / 100**2)
    assert (d.high - d.low) / 2 == pytest.approx(half, rel=1e-3)
    back = paired_difference(run_of(record, b), run_of(record, a))
    assert words([back]) == ["worse"]
    assert (back.low, back.high) == pytest.approx((-d.high, -d.low))


def test_pairing_sees_what_two_intervals_would_not(record: Any) -> None:
    rng = np.random.default_rng(0)
    b = rng.random((1, 500)) < 0.5
    a = b.copy()
    a[0, np.flatnonzero(~b[0])[:12]] = True
    apart = rng.permutation(a[0])[None]  # as accurate, on other queries
    near = paired_difference(run_of(record, a), run_of(record, b))
    far = paired_difference(run_of(record, apart), run_of(record, b))
    assert words([near]) == ["better"]
    assert words([far]) == ["no difference shown"]


def test_words_are_corrected_for_their_number(record: Any) -> None:
    b = np.zeros((1, 400), bool)
    a = b.copy()
    a[0, :7] = True
    one = paired_difference(run_of(record, a), run_of(record, b))
    assert 0.005 < one.p < 0.05
    assert words([one, None]) == ["better", None]
    none = paired_difference(run_of(record, b), run_of(record, b))
    assert words([one, *[none] * 19]) == ["no difference shown"] * 20


def test_run_without_draws_joins_every_repetition(record: Any) -> None:
    a, b = np.ones((3, 10), bool), np.zeros((1, 10), bool)
    a[0, 0] = a[1, :2] = False
    zero_shot = run_of(record, b, seeds=(0,), shots=0)
    d = paired_difference(run_of(record, a), zero_shot)
    assert d.mean == pytest.approx(0.9)
    assert (d.over, d.seeds) == ("repetitions and queries", None)
    back = paired_difference(zero_shot, run_of(record, a))
    assert (back.mean, back.low, back.high) == pytest.approx((-d.mean, -d.high, -d.low))


def test_runs_are_paired_over_the_seeds_in_common(record: Any) -> None:
    a, b = some(3), some(3, seed=1)
    ours, other = run_of(record, a, seeds=(1, 2, 3)), run_of(record, b, seeds=(3, 2, 9))
    d = paired_difference(ours, other)
    assert d.seeds == (2, 3)
    same = paired_difference(
        run_of(record, a[[1, 2]], seeds=(2, 3)), run_of(record, b[[1, 0]], seeds=(2, 3))
    )
    assert d == replace(same, seeds=(2, 3))
    one = paired_difference(run_of(record, a[:1], seeds=(1,)), ours)
    assert (one.over, one.seeds) == ("queries", (1,))  # not one row against all three
    assert one.mean == 0


def test_the_same_shots_need_no_seed_in_common(record: Any) -> None:
    a, b = some(1), some(1, seed=1)
    stored = Support(smallest=16, largest=16, whole=False, stored=True)
    whole = Support(smallest=16, largest=16, whole=True)
    for fields in ({"support": stored}, {"support": whole}, {"shots": None}):
        ours, other = (
            run_of(record, a, seeds=(1,), **fields),
            run_of(record, b, seeds=(2,), **fields),
        )
        assert paired_difference(ours, other).over == "queries"
    with pytest.raises(UsageError, match="cmm has seed 1, cmm seed 2"):
        paired_difference(run_of(record, a, seeds=(1,)), run_of(record, b, seeds=(2,)))


def test_runs_that_cannot_be_paired_are_refused(record: Any) -> None:
    a = np.ones((2, 10), bool)
    ours = run_of(record, a)
    with pytest.raises(UsageError, match="different queries"):
        paired_difference(ours, run_of(record, a, ids="other"))
    with pytest.raises(UsageError, match="No seed in common: cmm has seeds 0-1, cmm seeds 7-8"):
        paired_difference(ours, run_of(record, a, seeds=(7, 8)))
    with pytest.raises(UsageError, match="no stored predictions"):
        paired_difference(ours, replace(ours, predictions=None))
    with pytest.raises(UsageError, match="two queries or more"):
        paired_difference(run_of(record, a[:, :1]), run_of(record, a[:, :1]))


def test_relabelled_queries_are_other_queries(record: Any) -> None:
    ours = run_of(record, some(2))
    kept = ours.predictions
    moved = kept.labels.copy()
    moved[:, 0] = 1
    relabelled = replace(ours, predictions=replace(kept, labels=moved))
    with pytest.raises(UsageError, match="different queries"):
        paired_difference(ours, relabelled)
    newer = replace(ours, ids=f"{ours.ids}-{digest_labels(kept.labels)}")
    assert queries_of(newer) == queries_of(ours)  # an older record, by the labels beside it
    assert paired_difference(newer, ours).mean == 0
    with pytest.raises(UsageError, match="different queries"):
        paired_difference(newer, relabelled)
    assert queries_of(replace(ours, predictions=None)) != queries_of(newer)


def test_episodes_are_independent_draws(record: Any) -> None:
    a, b = some(30, 20), some(30, 20, right=0.5, seed=1)
    fields: dict[str, Any] = {"protocol": EPISODIC, "seeds": (1,)}
    d = paired_difference(run_of(record, a, **fields), run_of(record, b, **fields))
    gain = a.mean(axis=1) - b.mean(axis=1)
    interval = stats.ttest_1samp(gain, 0.0).confidence_interval()
    assert d.over == "episodes"
    assert (d.low, d.high) == pytest.approx((interval.low, interval.high), abs=2e-3)


def test_difference_to_the_zero_shot_answers_beside_a_run(record: Any) -> None:
    a, z = np.ones((1, 50), bool), np.ones((1, 50), bool)
    z[0, :10] = False
    d = difference_to_zero_shot(run_of(record, a, z))
    assert d.mean == pytest.approx(0.2)
    assert words([d]) == ["better"]
    with pytest.raises(UsageError, match="'toy' has no class texts"):
        difference_to_zero_shot(run_of(record, a))


def test_seeds_are_named_in_short() -> None:
    assert seeds_text((1,)) == "seed 1"
    assert seeds_text((3, 1, 2, 7)) == "seeds 1-3, 7"


def test_balanced_accuracy_is_compared_class_by_class(record: Any) -> None:
    """Against the mean of per-class differences, which top-1 is not where classes are unequal."""
    labels = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.int32)[None]
    rng = np.random.default_rng(0)

    def made(chances: tuple[float, float, float]) -> Any:
        right = rng.random(labels.shape) < np.array(chances)[labels]
        predicted = np.where(right, labels, (labels + 1) % 3).astype(np.int32)
        kept = Predictions(predicted=predicted, labels=labels, zero_shot=labels * 0)
        return record(predictions=kept, zero_shot_top1=None, seeds=(1,))

    one, other = made((0.95, 0.95, 0.0)), made((0.6, 0.6, 1.0))
    per_class = [
        [np.mean(r.predictions.predicted[labels == c] == c) for c in range(3)] for r in (one, other)
    ]
    d = paired_difference(one, other, "balanced_accuracy")
    assert d.mean == pytest.approx(np.mean(per_class[0]) - np.mean(per_class[1]))
    assert paired_difference(one, other).mean > 0.15 > 0 > d.mean
    n = labels.shape[1]
    hits = [(r.predictions.predicted == labels)[0].astype(float) for r in (one, other)]
    gain, y = hits[0] - hits[1], labels[0]

    def balanced(keep: np.ndarray) -> float:
        return float(np.mean([gain[keep & (y == c)].mean() for c in range(3)]))

    without = [balanced(np.arange(n) != i) for i in range(n)]
    pseudo = n * d.mean - (n - 1) * np.array(without)
    size = 9 / (1 / 60 + 1 / 30 + 1 / 10)
    added = 3.8415 * np.mean([(o - d.mean) ** 2 for o in (-1, 0, 0, 1)]) / size**2
    half = stats.t.ppf(0.975, n - 1) * np.sqrt(pseudo.var(ddof=1) / n + added)
    assert (d.high - d.low) / 2 == pytest.approx(half, rel=1e-3)
    zero = difference_to_zero_shot(one, "balanced_accuracy")
    assert zero.mean == pytest.approx(np.mean(per_class[0]) - 1 / 3)
    means = [r.metrics["macro_f1"].mean for r in (one, other)]
    assert paired_difference(one, other, "macro_f1").mean == pytest.approx(means[0] - means[1])
