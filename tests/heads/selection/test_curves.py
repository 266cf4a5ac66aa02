"""Few points of a post grid tell the others: against the plain walk over all of them."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.contract.rows import Rows, Tensors
from heads.contract.settings import Grid, number
from heads.fitted import Fitted
from heads.selection import curves, scoring
from heads.selection.curves import Curves

ALPHAS = [0.1 * i for i in range(1, 21)]
BETAS = [0.1 + 0.06 * i for i in range(200)]


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(1.0, logits="affine")
    beta: float = number(5.5, logits="smooth")
    gamma: float = number(0.0)


def combine(terms: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Tensor:
    votes = torch.exp(-hyper.beta * terms["distance"]) @ fixed["values"]
    mixed = terms["zero_shot"] + hyper.gamma * terms["zero_shot"].flip(-1)
    logits: Tensor = mixed + hyper.alpha * votes
    return logits


def combine_with_a_kink(terms: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Tensor:
    kink: Tensor = (hyper.beta - 3.03).clamp(min=0) * hyper.alpha
    return combine(terms, fixed, config, hyper) + kink


def combine_bent_in_alpha(terms: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Tensor:
    bent: Tensor = combine(terms, fixed, config, hyper) / (1 + hyper.alpha)
    return bent


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Any, hyper: Any) -> Tensors:
    return {"zero_shot": rows.x @ fixed["anchors"].mT, "distance": rows.x.abs()}


@pytest.fixture
def head(make_toy: Any) -> Fitted:
    rng = torch.Generator().manual_seed(1)
    values = torch.nn.functional.one_hot(torch.arange(12) % 4, 4).double()
    anchors = torch.randn(4, 12, generator=rng, dtype=torch.float64)
    method = make_toy("toy", hyper=Hyper, terms=terms, combine=combine)
    fixed = {"values": values, "anchors": anchors}
    return Fitted(method=method, config=method.config(), hyper=Hyper(), params={}, fixed=fixed)


@pytest.fixture
def rows() -> Rows:
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(90, 12, generator=rng, dtype=torch.float64) / 3
    return Rows(x=x, norms=torch.ones(90), labels=torch.arange(90) % 4)


@pytest.mark.parametrize(
    "axes",
    [
        {"beta": BETAS, "alpha": ALPHAS},
        {"alpha": ALPHAS},
        {"gamma": [0.0, 0.5], "beta": BETAS[::4], "alpha": ALPHAS},
        {"beta": BETAS[::4], "gamma": [0.0, 0.5], "alpha": ALPHAS},
        {"beta": BETAS[:9], "alpha": [0.1, 0.5, 3.0]},
        {"beta": BETAS, "alpha": [3.0, -0.5, 0.1, 0.5]},
    ],
    ids=["two axes", "one axis", "walked first", "walked between", "short", "mixed signs"],
)
def test_hits_are_those_of_the_walk(
    head: Fitted, rows: Rows, axes: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heads.fitted.CHUNK_BYTES", {"cpu": 2**17})
    grid = Grid(axes)
    expected = scoring._correct_by_points(head, rows, grid)
    few = Curves.of(Hyper, grid)
    assert few is not None
    got = scoring._correct_by_curves(head, rows, few)
    assert got is not None
    assert torch.equal(got, expected)
    assert torch.equal(scoring.correct_on_grid(head, rows, grid), expected)
    assert len(set(expected.tolist())) > 2


def test_classes_with_equal_texts_tie_at_zero_as_in_a_walk(head: Fitted, rows: Rows) -> None:
    equal = head.fixed["anchors"].clone()
    equal[3] = equal[1]
    twins = replace(head, fixed={**head.fixed, "anchors": equal})
    grid = Grid({"beta": BETAS, "alpha": [0.0, 0.5, 3.0]})
    assert Curves.of(Hyper, grid) is None
    correct = scoring.correct_on_grid(twins, rows, grid)
    assert torch.equal(correct, scoring._correct_by_points(twins, rows, grid))


def test_logits_are_computed_at_the_nodes_only(head: Fitted, rows: Rows, make_toy: Any) -> None:
    calls = []

    def counted(*given: Any) -> Tensor:
        calls.append(1)
        return combine(*given)

    method = make_toy("toy", hyper=Hyper, terms=terms, combine=counted)
    counting = Fitted(method=method, config=None, hyper=Hyper(), params={}, fixed=head.fixed)
    scoring.correct_on_grid(counting, rows, Grid({"beta": BETAS, "alpha": ALPHAS}))
    # the size of a chunk, the nodes to check and three points off them, and the nodes
    assert len(calls) == 1 + curves.NODES + 3 + curves.NODES


@pytest.mark.long
def test_a_claim_that_does_not_hold_is_not_used(head: Fitted, rows: Rows, make_toy: Any) -> None:
    grid = Grid({"beta": BETAS, "alpha": ALPHAS})
    few = Curves.of(Hyper, grid)
    assert few is not None
    for wrong in (combine_with_a_kink, combine_bent_in_alpha):
        method = make_toy("toy", hyper=Hyper, terms=terms, combine=wrong)
        other = Fitted(method=method, config=None, hyper=Hyper(), params={}, fixed=head.fixed)
        assert scoring._correct_by_curves(other, rows, few) is None
        expected = scoring._correct_by_points(other, rows, grid)
        assert torch.equal(scoring.correct_on_grid(other, rows, grid), expected)


def test_rows_without_finite_logits_are_walked(head: Fitted, rows: Rows) -> None:
    head.fixed["anchors"][0] = math.nan
    few = Curves.of(Hyper, Grid({"beta": BETAS, "alpha": ALPHAS}))
    assert few is not None
    assert scoring._correct_by_curves(head, rows, few) is None


@pytest.mark.parametrize(
    "axes",
    [{}, {"beta": BETAS}, {"alpha": ALPHAS, "beta": BETAS}, {"gamma": ALPHAS}, {"alpha": [1.0, 2]}],
)
def test_other_grids_are_walked(axes: dict[str, list[float]]) -> None:
    assert Curves.of(Hyper, Grid(axes)) is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=curves.NODES))
def test_interpolation_is_exact_for_polynomials(coefficients: list[float]) -> None:
    values = np.linspace(0.1, 7.0, 57)
    centred = (values - 3.55) / 3.45
    at_nodes = (curves.nodes(values.tolist()) - 3.55) / 3.45
    lift = curves.interpolation(values.tolist(), values.tolist()).numpy()
    polynomial = np.polynomial.Polynomial(coefficients)
    np.testing.assert_allclose(lift @ polynomial(at_nodes), polynomial(centred), atol=1e-12)


@pytest.mark.parametrize(("distance", "bound"), [(0.0, 1e-14), (1.0, 1e-10), (2.0, 2e-7)])
def test_twenty_nodes_are_enough_for_tip_adapters_votes(distance: float, bound: float) -> None:
    lift = curves.interpolation(BETAS, BETAS).numpy()
    got = lift @ np.exp(-distance * curves.nodes(BETAS))
    assert np.abs(got - np.exp(-distance * np.array(BETAS))).max() < bound


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_count_equals_brute_force(seed: int) -> None:
    """On whole numbers, so that ties are exact: there the first class is the answer."""
    rng = torch.Generator().manual_seed(seed)
    z, v = (torch.randint(-2, 3, (1, 30, 5), generator=rng).double() for _ in range(2))
    labels = torch.randint(5, (30,), generator=rng)
    a = torch.tensor([0.1, 0.3, 0.7, 1.1, 1.9]).double()  # no crossing of these lines lies here
    got = curves.count(z, v, labels, torch.ones(1, 1).double(), a)
    for i, x in enumerate(a):
        answers = (z + x * v)[0].numpy().argmax(-1)
        assert int(got[0, i]) == int((answers == labels.numpy()).sum())


def test_count_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    z, v = torch.randn(2, 3, 40, 6, generator=torch.Generator().manual_seed(0)).double()
    lift = torch.eye(3).double()
    labels, a = torch.arange(40) % 6, torch.tensor([0.2, 0.9, 2.5]).double()
    whole = curves.count(z, v, labels, lift, a)
    monkeypatch.setattr(curves, "BLOCK", 21)
    assert torch.equal(curves.count(z, v, labels, lift, a), whole)
