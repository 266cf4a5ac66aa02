from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from heads.results import metrics
from heads.results.record import Predictions
from heads.results.statistics import t_half_width


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


def test_one_repetition_gets_its_interval_from_the_queries(answers: Any) -> None:
    found = metrics.evaluate(answers(1, n=400, right=0.7), 4)
    top1 = found["top1"]
    assert set(found) == set(metrics.NAMES)
    assert (top1.interval, top1.values) == ("queries", (top1.mean,))
    assert top1.ci95 == pytest.approx(1.96 * np.sqrt(top1.mean * (1 - top1.mean) / 400), rel=0.1)
    assert metrics.evaluate(answers(1, n=400, right=0.7), 4) == found  # seeded


def test_repetitions_get_students_interval(answers: Any) -> None:
    found = metrics.evaluate(answers(1, r=3), 4)
    top1 = found["top1"]
    assert top1.interval == "repetitions"
    assert top1.mean == pytest.approx(sum(top1.values) / 3)
    assert top1.ci95 == t_half_width(top1.values)


def test_all_right_is_not_certainty() -> None:
    y = np.zeros((1, 20), dtype=np.int32)
    found = metrics.evaluate(Predictions(predicted=y, labels=y), 2)
    assert found["top1"].mean == 1.0
    assert found["top1"].ci95 == pytest.approx(0.161, abs=1e-3)
    assert found["macro_f1"].ci95 is None
    one = metrics.evaluate(Predictions(predicted=y[:, :1], labels=y[:, :1]), 2)
    assert (one["top1"].ci95, one["top1"].interval) == (None, "none")
