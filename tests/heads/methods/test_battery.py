"""What every registered method must hold to: the contract, checked on a toy world."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.types import FeatureSet, TextBank
from heads import registry
from heads.contract.facts import bind
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, hyper_values, with_values
from heads.episode import Episode
from heads.fitted import Fitted, traced
from heads.selection import scoring
from heads.selection.curves import Curves, claims
from heads.selection.select import select
from heads.training.batches import as_batch
from heads.training.samplers import Drawer
from heads.training.stacking import prepare, rows_of
from heads.training.trainer import train
from tests.heads.toy_tasks import fitted, make_task, rich_world, settings

OTHERWISE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cc-cdfsl", {"anchors": "corpus"}),
    ("cc-cdfsl", {"anchors": "corpus-with-pool"}),
    ("cc-cdfsl", {"adapter": "lora"}),
    ("fair", {"student": "anchors"}),
    ("fair", {"student": "anchors", "teacher": "neighbours"}),
)
"""Settings that change what a method reads or how it is trained, walked like methods."""


def otherwise(method: AnyMethod, values: dict[str, Any]) -> AnyMethod:
    """Return a method with other defaults."""
    if not values:
        return method
    annotated = {"__annotations__": {name: type(value) for name, value in values.items()}}
    made: Any = type("Config", (method.config,), {**annotated, **values})
    return replace(method, config=dataclass(frozen=True, kw_only=True)(made))


@pytest.fixture(
    params=[(name, {}) for name in registry.names()] + list(OTHERWISE),
    ids=lambda given: " ".join([given[0], *(f"{n}={v}" for n, v in given[1].items())]),
)
def method(request: pytest.FixtureRequest) -> AnyMethod:
    name, values = request.param
    return otherwise(registry.get(name), values)


@pytest.fixture
def features() -> FeatureSet:
    return rich_world()


@pytest.fixture
def task(method: AnyMethod, features: FeatureSet) -> Episode:
    return make_task(features, method)


def test_face(method: AnyMethod) -> None:
    assert registry.get(method.name).prepare is method.prepare
    assert method.summary.endswith(".")
    assert any(w in method.source for w in ("paper", "released code", "reconstruction"))
    hyper, config = set(hyper_values(method.hyper())), set(hyper_values(method.config()))
    assert set(method.train_grid.axes) <= hyper | config
    assert set(method.post_grid.axes) <= hyper
    assert hash(method.config()) == hash(method.config())


def test_logits_have_the_contracts_shape_and_type(method: AnyMethod, task: Episode) -> None:
    logits = fitted(method, task.view).logits(task.query)
    assert logits.shape == (20, 5)
    assert logits.dtype == torch.float32
    assert bool(torch.isfinite(logits).all())


def test_rows_are_independent(method: AnyMethod, task: Episode) -> None:
    if method.transductive:
        pytest.skip("answers all rows together by design")
    head = fitted(method, task.view)
    whole = head.logits(task.query)
    for rows in ([3], [7, 3, 11]):
        some = replace(task.query.take(torch.tensor(rows)), labels=None)
        torch.testing.assert_close(head.logits(some), whole[rows], rtol=1e-4, atol=1e-4)


def test_relabelling_the_classes_permutes_the_answers(method: AnyMethod, task: Episode) -> None:
    order = torch.tensor([2, 0, 3, 4, 1])  # new class i is old class order[i]
    rank = order.argsort()
    view, text = task.view, task.view.text
    assert isinstance(text, TextBank)
    assert text.template_rows is not None
    assert view.support.labels is not None
    turned = replace(
        view,
        support=replace(view.support, labels=rank[view.support.labels]),
        corpus=_relabelled(view.corpus, rank),
        text=replace(
            text,
            classes=tuple(text.classes[i] for i in order),
            template_rows=text.template_rows[order],
            owner=None if text.owner is None else rank[text.owner],
        ),
        classes=tuple(view.classes[i] for i in order),
    )
    before = fitted(method, view).logits(task.query)
    after = fitted(method, turned).logits(task.query)
    torch.testing.assert_close(after, before[:, order], rtol=1e-3, atol=2e-3)


def test_same_seed_same_bits(method: AnyMethod, task: Episode) -> None:
    one, other = fitted(method, task.view), fitted(method, task.view)
    assert _bits(one) == _bits(other)
    first = one.logits(task.query)
    assert torch.equal(first, other.logits(task.query))


def test_nothing_leaks(method: AnyMethod, task: Episode) -> None:
    """Neither query labels, nor without selection validation labels, move a single bit."""
    made = settings(method)
    assert task.val is not None
    turned = replace(task.with_query(_shuffled(task.query)), val=_shuffled(task.val))
    query_only = task.with_query(_shuffled(task.query))
    for mode, other in (("none", turned), ("few-shot-val", query_only)):
        (a,) = select(method, made, [task], mode)
        (b,) = select(method, made, [other], mode)
        assert _bits(a.head) == _bits(b.head)
        assert a.values == b.values


def test_labels_of_the_pool_are_out_of_reach(method: AnyMethod, features: FeatureSet) -> None:
    if not any(need.role == "pool" for need in method.needs(method.config())):
        pytest.skip("reads no pool")
    one = make_task(features, method)
    pool = np.setdiff1d(features.usable("train"), one.support_index)
    labels = features.labels.copy()
    labels[pool] = np.random.default_rng(1).integers(-1, len(features.classes), len(pool))
    poisoned = replace(features, listing=replace(features.listing, labels=labels))
    other = make_task(poisoned, method)
    assert other.view.pool is not None
    assert other.view.pool.labels is None
    assert _bits(fitted(method, one.view)) == _bits(fitted(method, other.view))


def test_stacked_and_alone_agree_without_a_warning(method: AnyMethod, task: Episode) -> None:
    """Losses under vmap over tasks and grid points; the slow fallback would warn."""
    made = settings(method)
    names = hyper_values(made.hyper)
    points = [with_values(made.hyper, {n: v * f for n, v in names.items()}) for f in (1.0, 1.25)]
    other = _flipped(task.view)
    views = [task.view, other]
    alone = {(o.task, o.point): o for o in train(method, made.config, views, points, width=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stacked = list(train(method, made.config, views, points, width=99))
    assert len(stacked) == 4
    for run in stacked:
        mine = run.head.logits(task.query)
        theirs = alone[run.task, run.point].head.logits(task.query)
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=5e-3)


def test_terms_and_combine_run_under_vmap(method: AnyMethod, task: Episode) -> None:
    head = fitted(method, task.view)
    query = replace(task.query.take(slice(None)), labels=None)
    tensors = {n: torch.stack([t, t]) for n, t in (head.params | head.fixed).items()}
    values = {n: torch.tensor([v, v]) for n, v in hyper_values(head.hyper).items()}

    def answer(tensors: Tensors, values: Tensors) -> Tensor:
        params = {n: tensors[n] for n in head.params}
        fixed = {n: tensors[n] for n in head.fixed}
        hyper = with_values(head.hyper, values)
        terms = method.terms(params, fixed, query, head.config, hyper)
        return method.combine(terms, fixed, head.config, hyper)

    dims = (dict.fromkeys(tensors, 0), dict.fromkeys(values, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = torch.func.vmap(answer, in_dims=dims)(tensors, values)
    expected = head.logits(task.query)
    torch.testing.assert_close(logits[1], expected, rtol=1e-4, atol=1e-4)


def test_what_the_method_says_of_its_logits_holds(method: AnyMethod, task: Episode) -> None:
    """Where Hyper says affine or smooth, few points tell the hits of the whole grid."""
    said = {n: word for n, word in claims(method.hyper).items() if word}
    axes = {
        n: np.linspace(low := values[0], max(values[-1], low + 1), 25 if n in said else 2).tolist()
        for n, values in method.post_grid.axes.items()
    }
    few = Curves.of(method.hyper, Grid(axes))
    if few is None:
        pytest.skip("says nothing")
    head = fitted(method, task.view)
    hits = scoring._correct_by_curves(head, task.query, few)
    assert hits is not None
    assert (
        hits - scoring._correct_by_points(head, task.query, few.grid)
    ).abs().max() <= 1  # near-ties


def test_losses_ignore_padding(method: AnyMethod, task: Episode) -> None:
    made = settings(method)
    config = bind(method, made.config, [task.view])
    for k, stage in enumerate(method.stages(config)):
        params, fixed = method.prepare(task.view, config, made.hyper)
        hyper = traced(made.hyper, task.view.support.x)
        state = stage.start(params, fixed, config, hyper) if stage.start else {}
        drawer = Drawer(stage.batches, rows_of(stage, task.view), 0, k, fixed)
        rows, kinds, beside = drawer.gather(drawer.draw(0), 0, None)
        padded = {n: torch.cat([t, t[:3]]) for n, t in rows.items()}
        padded["weights"] = torch.cat([rows["weights"], torch.zeros(3)])
        longer = {kind: torch.cat([t, t[:3]]) for kind, t in kinds.items()}
        zero = torch.tensor(0)
        values = [
            float(stage.loss(params, fixed, state, as_batch(r, zero, zero), config, hyper)[0])
            for r in ((rows, kinds, beside), (padded, longer, beside))
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_step_of_training_changes_what_the_stage_trains_and_nothing_else(
    method: AnyMethod, task: Episode
) -> None:
    made = settings(method)
    stages = method.stages(made.config)
    if not stages:
        pytest.skip("training-free")
    config = bind(method, made.config, [task.view])
    (cell,) = prepare(method, config, 0, task.view, [made.hyper])
    (run,) = train(method, made.config, [task.view], [made.hyper])
    trained = {name for stage in stages for name in stage.trained(cell.params)}
    for name, start in cell.params.items():
        assert torch.equal(run.head.params[name], start) == (name not in trained)


def _flipped(view: TaskView) -> TaskView:
    """Return another task of the same shapes."""
    pool, corpus = (
        None if rows is None else replace(rows, x=rows.x.flip(1))
        for rows in (view.pool, view.corpus)
    )
    support = replace(view.support, x=view.support.x.flip(1))
    return replace(view, support=support, pool=pool, corpus=corpus)


def _relabelled(rows: Rows | None, rank: Tensor) -> Rows | None:
    return None if rows is None else replace(rows, labels=rank[rows.y])


def _shuffled(rows: Rows) -> Rows:
    assert rows.labels is not None
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(rows.labels)))
    return replace(rows, labels=rows.labels[order])


def _bits(head: Fitted) -> list[bytes]:
    return [t.numpy().tobytes() for t in (head.params | head.fixed).values()]
