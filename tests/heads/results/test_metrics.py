from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from heads.results import metrics, statistics
from heads.results.record import Predictions


def test_measures_equal_scikit_learns(answers: Any) -> None:
    kept = answers(3, n=200, c=7, right=0.6)
    p, y = kept.predicted[0], kept.labels[0]
    assert metrics.top1(p, y) == pytest.approx(float((p == y).mean()))
    assert metrics.macro_f1(p, y, 7) == pytest.approx(f1_score(y, p, average="macro"))
    assert metrics.balanced_accuracy(p, y, 7) == pytest.approx(balanced_accuracy_score(y, p))


def test_class_without_queries_is_left_out() -> None:
    y = np.array([0, 0, 2], dtype=np.int32)
    p = np.array([0, 1, 2], dtype=np.int32)
    accuracy = metrics.per_class_accuracy(p, y, 4)
    assert accuracy[[0, 2]].tolist() == [0.5, 1.0]
    assert np.isnan(accuracy[[1, 3]]).all()
    assert metrics.balanced_accuracy(p, y, 4) == pytest.approx(0.75)
    assert metrics.macro_f1(p, y, 4) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(("n", "c"), [(16, 3), (12, 7)])
def test_pseudo_values_are_those_of_the_jackknife(n: int, c: int) -> None:
    rng = np.random.default_rng(n)
    labels = np.tile(rng.integers(0, c, n), (2, 1)).astype(np.int32)
    labels[:, 0] = c  # the only query of its class, and in its first row missed
    predicted = np.where(rng.random((2, n)) < 0.6, labels, rng.integers(0, c + 2, (2, n)))
    predicted = predicted.astype(np.int32)
    predicted[:, 0] = (0, c)
    found = metrics.Counts.of(predicted, labels, c + 2).pseudo_values()
    for row in range(2):
        p, y = predicted[row], labels[row]

        def measured(p: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
            f1, balanced = metrics.macro_f1(p, y, c + 2), metrics.balanced_accuracy(p, y, c + 2)
            return metrics.top1(p, y), f1, balanced

        without = np.array([measured(np.delete(p, i), np.delete(y, i)) for i in range(n)])
        expected = measured(p, y) + (n - 1) * (without.mean(axis=0) - without)
        got = np.stack([found[name][row] for name in metrics.NAMES], axis=1)
        assert got == pytest.approx(expected)


def test_one_repetition_gets_its_interval_from_the_queries(answers: Any) -> None:
    kept = answers(1, n=400, right=0.7)
    found = metrics.evaluate(kept, 4)
    top1 = found["top1"]
    assert set(found) == set(metrics.NAMES)
    assert (top1.interval, top1.values) == ("queries", (top1.mean,))
    hits = (kept.predicted == kept.labels).astype(float)
    assert top1.ci95 == float(statistics.of_queries(hits).half)
    assert top1.ci95 == pytest.approx(1.96 * np.sqrt(top1.mean * (1 - top1.mean) / 400), rel=0.02)
    assert found["balanced_accuracy"].ci95 == pytest.approx(top1.ci95, rel=0.1)  # equal classes


def test_repetitions_are_crossed_with_their_queries(answers: Any) -> None:
    kept = answers(1, r=3)
    found = metrics.evaluate(kept, 4)
    top1 = found["top1"]
    assert top1.interval == "repetitions and queries"
    assert top1.mean == pytest.approx(sum(top1.values) / 3)
    hits = (kept.predicted == kept.labels).astype(float)
    assert top1.ci95 == float(statistics.of_queries(hits).half)
    episodes = metrics.evaluate(kept, 4, "episodes")
    assert {m.interval for m in episodes.values()} == {"episodes"}
    assert episodes["top1"].ci95 == float(
        statistics.of_draws(np.array(top1.values), size=float(hits.size)).half
    )


@pytest.mark.parametrize("r", [1, 2])
def test_all_right_is_not_certainty(r: int) -> None:
    y = np.zeros((r, 20), dtype=np.int32)
    found = metrics.evaluate(Predictions(predicted=y, labels=y), 2)
    assert {m.mean for m in found.values()} == {1.0}
    assert [m.ci95 for m in found.values()] == pytest.approx([0.145] * 3, abs=1e-3)
    one = metrics.evaluate(Predictions(predicted=y[:, :1], labels=y[:, :1]), 2)
    assert {(m.ci95, m.interval) for m in one.values()} == {(None, "none")}


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [([[0, 1]], [[0, 1]]), ([[1, 0]], [[0, 1]]), ([[1, 1]], [[0, 0]]), ([[0, 0, 2]], [[0, 1, 1]])],
)
@pytest.mark.parametrize("r", [1, 2])
def test_a_few_queries_of_a_few_classes_have_finite_intervals(
    predicted: list[list[int]], labels: list[list[int]], r: int
) -> None:
    p, y = (np.array(rows * r, dtype=np.int32) for rows in (predicted, labels))
    for over in ("repetitions", "episodes"):
        for metric in metrics.evaluate(Predictions(predicted=p, labels=y), 3, over).values():
            assert metric.ci95 is not None
            assert 0 < metric.ci95 < 100
