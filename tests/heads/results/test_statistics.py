from typing import Any

import numpy as np
import pytest

from featcache.errors import UsageError
from heads.results import statistics
from heads.results.record import Predictions
from heads.results.statistics import difference_to_zero_shot, paired_difference

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 10, 99])
def test_t_quantile_equals_scipys(df: int) -> None:
    for level in (0.9, 0.975, 0.999):
        assert statistics.t_quantile(df, level) == pytest.approx(stats.t.ppf(level, df), rel=1e-9)


def test_t_half_width_equals_scipys_interval() -> None:
    values = [0.7, 0.74, 0.69]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert statistics.t_half_width(values) == pytest.approx((high - low) / 2)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (3, 17)])
def test_wilson_equals_scipys(hits: int, n: int) -> None:
    interval = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert statistics.wilson(hits, n) == pytest.approx((interval.low, interval.high))


def run_of(record: Any, hits: np.ndarray, zero: np.ndarray | None = None, **fields: Any) -> Any:
    """Return a record whose answers are right where `hits` says so."""
    labels = np.zeros(hits.shape, dtype=np.int32)
    kept = Predictions(
        predicted=1 - hits.astype(np.int32),
        labels=labels,
        zero_shot=None if zero is None else 1 - zero.astype(np.int32),
    )
    fields.setdefault("seeds", tuple(range(len(hits))))
    return record(predictions=kept, zero_shot_top1=None, metrics={}, **fields)


def test_one_draw_is_compared_query_by_query(record: Any) -> None:
    a, b = np.zeros((1, 100), bool), np.zeros((1, 100), bool)
    a[0, :60], b[0, :50] = True, True
    d = paired_difference(run_of(record, a), run_of(record, b))
    assert d.mean == pytest.approx(0.1)
    assert (d.over, d.word) == ("queries", "better")
    half = 1.96 * np.sqrt((0.1 - 0.01) / 100)
    assert (d.high - d.low) / 2 == pytest.approx(half, rel=0.1)
    back = paired_difference(run_of(record, b), run_of(record, a))
    assert back.word == "worse"
    assert (back.low, back.high) == pytest.approx((-d.high, -d.low), abs=0.011)


def test_pairing_sees_what_two_intervals_would_not(record: Any) -> None:
    rng = np.random.default_rng(0)
    b = rng.random((1, 500)) < 0.5
    a = b.copy()
    a[0, np.flatnonzero(~b[0])[:12]] = True
    assert paired_difference(run_of(record, a), run_of(record, b)).word == "better"
    apart = rng.permutation(a[0])[None]  # as accurate, on other queries
    assert paired_difference(run_of(record, apart), run_of(record, b)).word == (
        "no difference shown"
    )


def test_repetitions_are_compared_by_students_t(record: Any) -> None:
    a, b = np.zeros((3, 10), bool), np.zeros((3, 10), bool)
    for r, k in enumerate((3, 4, 5)):
        a[r, :k] = True
    d = paired_difference(run_of(record, a), run_of(record, b))
    test = stats.ttest_rel([0.3, 0.4, 0.5], [0.0, 0.0, 0.0]).confidence_interval()
    assert d.over == "repetitions"
    assert (d.low, d.high) == pytest.approx((test.low, test.high))


def test_run_without_draws_joins_every_repetition(record: Any) -> None:
    a, b = np.ones((3, 10), bool), np.zeros((1, 10), bool)
    a[0, 0] = a[1, :2] = False
    d = paired_difference(run_of(record, a), run_of(record, b, seeds=(0,)))
    assert d.mean == pytest.approx(0.9)
    assert d.over == "repetitions"


def test_equal_runs_show_no_difference(record: Any) -> None:
    a = np.ones((1, 10), bool)
    d = paired_difference(run_of(record, a), run_of(record, a))
    assert (d.low, d.high, d.word) == (0, 0, "no difference shown")


def test_runs_that_cannot_be_paired_are_refused(record: Any) -> None:
    a = np.ones((2, 10), bool)
    ours = run_of(record, a)
    with pytest.raises(UsageError, match="different queries"):
        paired_difference(ours, run_of(record, a, ids="other"))
    with pytest.raises(UsageError, match="different shots"):
        paired_difference(ours, run_of(record, a, seeds=(7, 8)))
    with pytest.raises(UsageError, match="no stored predictions"):
        paired_difference(ours, record(predictions=None, metrics={}, zero_shot_top1=0.0, queries=1))


def test_difference_to_the_zero_shot_answers_beside_a_run(record: Any) -> None:
    a, z = np.ones((1, 50), bool), np.ones((1, 50), bool)
    z[0, :10] = False
    d = difference_to_zero_shot(run_of(record, a, z))
    assert d is not None
    assert d.mean == pytest.approx(0.2)
    assert d.word == "better"
    assert difference_to_zero_shot(run_of(record, a)) is None
