"""Refining a search: the bracket of CoOp's linear probe, step by step."""

import math

import pytest

from heads.selection.grid import bisect


def test_it_closes_in_on_a_peak_inside_the_bracket() -> None:
    found = bisect(10.0, 12, lambda value: -abs(math.log10(value) - 1.3))
    assert math.log10(found) == pytest.approx(1.3, abs=2e-3)


def test_equals_go_to_the_smaller_side() -> None:
    assert bisect(1.0, 1, lambda _: 0.0) == pytest.approx(0.1)
    assert bisect(1.0, 3, lambda _: 0.0) == pytest.approx(0.1)


def test_the_released_search_is_followed() -> None:
    """The ends 0.1 and 10; right is better: 1 and 10; left is better: 1 and 10^0.5; and so on."""
    visited: list[float] = []
    right = {0.1: 1.0, 10.0: 2.0, 1.0: 3.0, 10**0.5: 4.0}

    def answer(value: float) -> float:
        visited.append(value)
        return next(v for k, v in right.items() if math.isclose(k, value))

    assert bisect(1.0, 3, answer) == pytest.approx(10**0.5)
    assert visited == pytest.approx([0.1, 10.0, 1.0, 10**0.5])
