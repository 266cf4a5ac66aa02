"""Expected calibration error against a slow loop."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from heads.ops.calibration import expected_calibration_error

ROWS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def by_hand(rows: list[tuple[float, bool]], bins: int) -> float:
    error = 0.0
    for b in range(bins):
        inside = [(p, right) for p, right in rows if (b < p * bins <= b + 1) or (b == 0 and p == 0)]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(p for p, _ in inside) / len(inside)
            error += len(inside) / len(rows) * abs(accuracy - confidence)
    return error


@given(rows=ROWS, bins=st.sampled_from([1, 2, 15]))
def test_it_is_that_of_a_loop(rows: list[tuple[float, bool]], bins: int) -> None:
    confidence = torch.tensor([p for p, _ in rows], dtype=torch.float64)
    correct = torch.tensor([right for _, right in rows])
    found = expected_calibration_error(confidence, correct, bins)
    assert abs(found - by_hand(rows, bins)) < 1e-12


def test_sure_and_right_is_no_error_sure_and_wrong_is_all() -> None:
    sure = torch.ones(4)
    assert expected_calibration_error(sure, torch.ones(4).bool()) == 0
    assert expected_calibration_error(sure, torch.zeros(4).bool()) == 1
