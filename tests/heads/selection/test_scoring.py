"""Scoring in chunks and over a grid equals scoring row by row and point by point."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from featcache.errors import TrainingError
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows
from heads.contract.settings import Grid
from heads.fitted import Fitted
from heads.selection import scoring


@pytest.fixture
def head(toy: AnyMethod, make_view: Any) -> Fitted:
    params, fixed = toy.prepare(make_view(dtype=torch.float32), toy.config(), toy.hyper())
    rng = torch.Generator().manual_seed(3)
    params["weight"] = torch.randn(4, 8, generator=rng)
    return Fitted(method=toy, config=toy.config(), hyper=toy.hyper(), params=params, fixed=fixed)


@pytest.fixture
def rows(make_view: Any) -> Rows:
    rows: Rows = make_view(n=37, seed=5, dtype=torch.float32).support
    return rows


def test_chunks_do_not_change_the_logits(
    head: Fitted, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = head.logits(rows)
    monkeypatch.setattr("heads.fitted.CHUNK_BYTES", {"cpu": 1000})
    torch.testing.assert_close(head.logits(rows), whole)
    assert torch.equal(head.predict(rows), whole.argmax(-1))


@pytest.mark.parametrize(
    "grid",
    [
        Grid(),
        Grid({"alpha": [0, 0.5, 2]}),
        Grid({"shift": [0.0, 1.0], "alpha": [0.0, 0.5, 2.0]}),
    ],
    ids=["empty", "one axis", "two axes"],
)
def test_the_grid_is_walked_in_its_order(
    head: Fitted, rows: Rows, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heads.fitted.CHUNK_BYTES", {"cpu": 2000})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        correct = scoring.correct_on_grid(head, rows, grid)
    expected = [round(head.at(p).accuracy(rows) * 37) for p in grid.points()]
    assert correct.tolist() == expected
    assert len(set(expected)) > 1 or len(grid) == 1


def test_terms_are_computed_once_for_the_whole_grid(make_toy: Any, rows: Rows) -> None:
    calls = []
    plain = make_toy("toy")

    def counted(params: Any, fixed: Any, rows: Rows, config: Any, hyper: Any) -> Any:
        assert rows.labels is None
        calls.append(len(rows))
        return plain.terms(params, fixed, rows, config, hyper)

    method = make_toy("toy", terms=counted)
    weight = torch.zeros(4, 8)
    head = Fitted(
        method=method,
        config=method.config(),
        hyper=method.hyper(),
        params={"weight": weight, "bias": weight.new_zeros(4)},
        fixed={"anchors": weight},
    )
    scoring.correct_on_grid(head, rows, Grid({"alpha": [1.0, 2.0, 3.0]}))
    assert calls == [2, 37]  # two rows to learn how large terms are


def test_a_transductive_method_gets_all_rows_at_once(
    make_toy: Any, head: Fitted, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heads.fitted.CHUNK_BYTES", {"cpu": 1})
    sizes = []
    plain = head.method

    def counted(params: Any, fixed: Any, rows: Rows, config: Any, hyper: Any) -> Any:
        sizes.append(len(rows))
        return plain.terms(params, fixed, rows, config, hyper)

    method = make_toy("toy", terms=counted, transductive=True)
    replace(head, method=method).predict(rows)
    assert sizes == [37]


def test_validation_rows_reach_a_transductive_method_beside_the_queries(
    make_toy: Any, head: Fitted, rows: Rows, make_view: Any
) -> None:
    seen: list[Rows] = []
    plain = head.method

    def noted(params: Any, fixed: Any, rows: Rows, config: Any, hyper: Any) -> Any:
        seen.append(rows)
        return plain.terms(params, fixed, Rows.of(rows.x), config, hyper)

    method = make_toy("toy", terms=noted, transductive=True)
    val = make_view(n=5, seed=6, dtype=torch.float32).support
    asked = replace(val, among=replace(rows, labels=None))
    together = replace(head, method=method)
    correct = scoring.correct_on_grid(together, asked, Grid({"alpha": [0.0, 2.0]}))
    assert (
        correct.tolist() == scoring.correct_on_grid(head, val, Grid({"alpha": [0.0, 2.0]})).tolist()
    )
    assert together.predict(rows).shape == (37,)
    (first, second) = seen
    assert first.among is not None
    assert first.labels is first.among.labels is second.labels is None
    assert torch.equal(first.among.x, rows.x)
    assert torch.equal(first.x, val.x)
    assert second.among is None
    assert torch.equal(second.x, rows.x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_never_right(make_toy: Any, rows: Rows, bad: float) -> None:
    """argmax takes NaN for the largest of all, and its place for an answer."""

    def spoilt(terms: Any, fixed: Any, config: Any, hyper: Any) -> torch.Tensor:
        logits: torch.Tensor = terms["zero_shot"] + 0 * hyper.alpha
        return torch.where(hyper.alpha > 1, torch.full_like(logits, bad), logits)

    method = make_toy("toy", combine=spoilt)
    params = {"weight": torch.zeros(4, 8), "bias": torch.zeros(4)}
    fixed = {"anchors": torch.eye(8)[:4]}
    head = Fitted(
        method=method, config=method.config(), hyper=method.hyper(), params=params, fixed=fixed
    )
    correct = scoring.correct_on_grid(head, rows, Grid({"alpha": [0.5, 2.0]}))
    assert correct[0] > 0
    assert correct[1] == 0
    assert head.at({"alpha": 2.0}).accuracy(rows) == 0
    with pytest.raises(TrainingError, match="not finite"):
        head.at({"alpha": 2.0}).predict(rows)
