"""Intervals and p-values against loops that a reader can trust, and where nothing varies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.results import statistics

stats = pytest.importorskip("scipy.stats")


def two_way_by_loops(d: np.ndarray, outcomes: tuple[float, ...], size: float) -> tuple[float, ...]:
    """Return mean, half-width and p of (1)-(3), cell by cell."""
    r, n = d.shape
    m = sum(d[i, j] for i in range(r) for j in range(n)) / (r * n)
    rows = [sum(d[i, j] for j in range(n)) / n for i in range(r)]
    columns = [sum(d[i, j] for i in range(r)) / r for j in range(n)]
    ms_r = n * sum((row - m) ** 2 for row in rows) / (r - 1)
    ms_q = r * sum((column - m) ** 2 for column in columns) / (n - 1)
    ms_e = sum((d[i, j] - rows[i] - columns[j] + m) ** 2 for i in range(r) for j in range(n)) / (
        (r - 1) * (n - 1)
    )
    v = max(ms_r + ms_q - ms_e, ms_r, ms_q) / (r * n)
    df = (r * n * v) ** 2 / (ms_r**2 / (r - 1) + ms_q**2 / (n - 1) + ms_e**2 / ((r - 1) * (n - 1)))
    df = max(df, min(r, n) - 1)
    z2 = stats.norm.ppf(0.975) ** 2
    v += z2 / size**2 * sum((outcome - m) ** 2 for outcome in outcomes) / len(outcomes)
    crossed, seeds = np.sqrt(v), np.sqrt(ms_r / (r * n))
    half = max(stats.t.ppf(0.975, df) * crossed, stats.t.ppf(0.975, r - 1) * seeds)
    p = max(
        2 * stats.t.sf(abs(m) / crossed, df),
        2 * stats.t.sf(abs(m) / seeds, r - 1) if seeds else 0.0,
    )
    return m, half, p


@pytest.mark.parametrize(("r", "n"), [(2, 5), (2, 400), (3, 50), (10, 30)])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_seeds_and_queries_are_crossed_as_the_loops_say(r: int, n: int, spread: float) -> None:
    rng = np.random.default_rng(r * n)
    chance = 0.6 + spread * rng.normal(size=(r, 1)) + 0.2 * rng.normal(size=n)
    hits = (rng.random((r, n)) < chance).astype(float)
    other = (rng.random((r, n)) < chance).astype(float)
    for values, outcomes in ((hits, statistics.CORRECT), (hits - other, statistics.DIFFERENCES)):
        found = statistics.of_queries(values, outcomes=outcomes)
        expected = two_way_by_loops(values, outcomes, n)
        assert (float(found.mean), float(found.half), float(found.p)) == pytest.approx(expected)
    at_once = statistics.of_queries(np.stack([hits, other]))
    assert at_once.half[1] == statistics.of_queries(other).half
    smaller = statistics.of_queries(hits, size=n / 2)
    assert float(smaller.half) == pytest.approx(
        two_way_by_loops(hits, statistics.CORRECT, n / 2)[1]
    )


def test_independent_draws_have_students_interval() -> None:
    values = np.array([0.7, 0.74, 0.69])
    test = stats.ttest_1samp(values, 0.0)
    interval = test.confidence_interval()
    found = statistics.of_draws(values, size=np.inf)
    assert float(found.half) == pytest.approx((interval.high - interval.low) / 2)
    assert float(found.p) == pytest.approx(test.pvalue)
    assert statistics.of_draws(values, size=75.0).half > found.half


@pytest.mark.parametrize("r", [2, 3])
def test_heads_that_contradict_each_other_have_an_interval(r: int) -> None:
    values = np.eye(r)  # rows and columns are alike, and yet no two answers are
    found = statistics.of_queries(values)
    assert np.isfinite([found.half, found.p]).all()
    values[0, 0] += 1e-9
    nearly = statistics.of_queries(values)
    assert float(nearly.half) == pytest.approx(float(found.half), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(2, 6), st.data())
def test_no_answers_give_no_interval(r: int, n: int, data: st.DataObject) -> None:
    few = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=n, max_size=n)
    values = np.array(data.draw(st.lists(few, min_size=r, max_size=r)))
    for outcomes in (statistics.CORRECT, statistics.DIFFERENCES):
        found = statistics.of_queries(values, outcomes=outcomes)
        assert np.isfinite([found.mean, found.half, found.p]).all()
        assert found.half > 0
        assert 0 <= found.p <= 1
        assert (found.p < statistics.LEVEL) == (abs(found.mean) > found.half)


@pytest.mark.parametrize("r", [1, 2, 5])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_answers_that_all_agree_are_not_certainty(r: int, share: float) -> None:
    n = 200
    found = statistics.of_queries(np.full((r, n), share))
    wilson = stats.binomtest(round(share * n), n).proportion_ci(method="wilson")
    assert float(found.half) == pytest.approx(np.sqrt(statistics.Z2 / 2) * 1.972 / n, rel=1e-3)
    assert 0.7 < float(found.half) / (wilson.high - wilson.low) < 1


def test_many_seeds_on_the_same_queries_make_no_false_claims() -> None:
    """Ten seeds, 200 queries: t over the seeds calls half of all equal methods different."""
    rng = np.random.default_rng(0)
    s, r, n = 600, 10, 200
    query = rng.normal(size=(2, s, 1, n))  # each method finds other queries hard
    noise = 0.3 * rng.normal(size=(2, s, r, n)) + 0.05 * rng.normal(size=(2, s, r, 1))
    gain = np.subtract(*((query + noise) < 1.0).astype(float))
    crossed = statistics.of_queries(gain, outcomes=statistics.DIFFERENCES)
    seeds = statistics.of_draws(gain.mean(axis=-1), size=np.inf)
    assert (seeds.p < 0.05).mean() > 0.4
    assert 0.01 < (crossed.p < 0.05).mean() < 0.08


def test_holm_steps_down() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.9]
    naive = [0.0] * len(p)
    most = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        most = naive[i] = max(most, min(1.0, (len(p) - rank) * p[i]))
    assert statistics.holm(p) == pytest.approx(naive)
    assert statistics.holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert statistics.holm([]) == []
