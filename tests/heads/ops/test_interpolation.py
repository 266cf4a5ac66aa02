import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heads.ops.interpolation import lagrange, leja_points

VALUES = [0.5 + i * 2.5 / 19 for i in range(20)]


def test_a_smooth_function_is_told_by_few_values() -> None:
    nodes = leja_points(VALUES, 7)
    for x in VALUES:
        told = sum(w * math.exp(-2 * n) for w, n in zip(lagrange(nodes, x), nodes, strict=True))
        assert told == pytest.approx(math.exp(-2 * x), abs=5e-4)
    fewer = leja_points(VALUES, 3)
    worst = max(
        abs(
            sum(w * math.exp(-2 * n) for w, n in zip(lagrange(fewer, x), fewer, strict=True))
            - math.exp(-2 * x)
        )
        for x in VALUES
    )
    assert worst > 1e-2  # three are too few, so the bound above means something


def test_the_nodes_are_some_of_the_values_with_both_ends() -> None:
    nodes = leja_points([*VALUES, VALUES[3]], 6)
    assert len(nodes) == 6
    assert set(nodes) <= set(VALUES)
    assert (nodes[0], nodes[-1]) == (VALUES[0], VALUES[-1])
    assert leja_points([3.0, 1.0, 3.0], 6) == [1.0, 3.0]
    assert lagrange([2.0], 9.0) == [1]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=6, unique_by=lambda v: round(v, 1)))
def test_at_a_node_only_that_node_counts(nodes: list[float]) -> None:
    for i, x in enumerate(nodes):
        weights = lagrange(nodes, x)
        assert weights[i] == 1
        assert not any(w for j, w in enumerate(weights) if j != i)
