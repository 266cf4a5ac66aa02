import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from featcache.errors import MissingComponentError
from heads.contract.rows import Kind, Rows, TaskView
from heads.methods import gda
from heads.ops import discriminant as ops

CONFIG = gda.Config()


def logits(task: TaskView, x: Tensor, config: gda.Config = CONFIG, **values: float) -> Tensor:
    hyper = gda.Hyper(**values)
    params, fixed = gda.prepare(task, config, hyper)
    terms = gda.terms(params, fixed, Rows.of(x), config, hyper)
    return gda.combine(terms, fixed, config, hyper)


def naive(x: Tensor, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The discriminant of (1) in loops, with the pseudo-inverse that (3) names."""
    n, d = rows.shape
    means = [rows[labels == c].mean(0) for c in range(classes)]
    scatter = torch.zeros(d, d, dtype=torch.float64)
    for row, label in zip(rows, labels.tolist(), strict=True):
        apart = row - means[label]
        for i in range(d):
            for j in range(d):
                scatter[i, j] += apart[i] * apart[j]
    covariance = scatter / (n - 1)
    trace = sum(float(covariance[i, i]) for i in range(d))
    precision = d * torch.linalg.pinv((n - 1) * covariance + trace * torch.eye(d).double())
    out = []
    for q in x:
        bias = [-math.log(classes) - 0.5 * float(m @ precision @ m) for m in means]
        out.append([float(q @ precision @ m) + b for m, b in zip(means, bias, strict=True)])
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 100.0])
def test_logits_equal_naive_loops(toy: Any, alpha: float) -> None:
    task, x = toy()
    expected = 20.0 * x @ task.text.anchors().double().T
    expected = expected + alpha * naive(x, task.support.x, task.support.labels, task.c)
    torch.testing.assert_close(logits(task, x, alpha=alpha), expected, rtol=1e-11, atol=1e-9)


def test_every_view_is_a_row(toy: Any) -> None:
    task, x = toy(views=3)
    rows = task.support.kinds[Kind("views", "rrc50")].reshape(-1, 6)
    labels = torch.tensor([y for y in task.support.labels.tolist() for _ in range(3)])
    gap = logits(task, x, alpha=1.0) - logits(task, x, alpha=0.0)
    torch.testing.assert_close(gap, naive(x, rows, labels, task.c), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_of_rows_do_not_matter(
    toy: Any, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, x = toy(views=3)
    whole = logits(task, x)
    monkeypatch.setattr(ops, "CHUNK", chunk)
    torch.testing.assert_close(logits(task, x), whole, rtol=1e-12, atol=1e-12)


def test_answers_are_scikit_learns_where_its_shrinkage_is_the_same() -> None:
    # (n - 1) S + tr(S) I is proportional to (1 - r) S + r tr(S)/d I for r = d / (d + n - 1)
    rng = np.random.default_rng(0)
    d, each, classes = 8, 12, 4
    n = each * classes
    y = np.arange(n) % classes
    rows = rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d)) * rng.uniform(0.3, 2, size=d)
    weight, offset = ops.discriminant(torch.from_numpy(rows), torch.from_numpy(y), classes)
    fitted = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=d / (d + n - 1), priors=np.full(classes, 1 / classes)
    )
    fitted.fit(rows, y)
    x = rng.normal(size=(40, d))
    ours = x @ weight.numpy().T + offset.numpy() + math.log(classes)
    theirs = x @ fitted.coef_.T + fitted.intercept_ + math.log(classes)
    factor = np.abs(ours).max() / np.abs(theirs).max()
    assert np.abs(ours - factor * theirs).max() < 1e-9 * np.abs(ours).max()


def test_rows_without_scatter_leave_zero_shot(toy: Any) -> None:
    task, x = toy(counts=(1, 1, 1, 1))
    assert torch.equal(logits(task, x, alpha=100.0), logits(task, x, alpha=0.0))
    # three equal views of a shot: their mean is off by rounding only
    same = task.support.x[:, None].repeat(1, 3, 1)
    task = replace(task, support=replace(task.support, kinds={Kind("views", "rrc50"): same}))
    assert torch.equal(logits(task, x, alpha=100.0), logits(task, x, alpha=0.0))


def test_a_class_without_shots_takes_the_mean_of_all_rows(toy: Any) -> None:
    task, _ = toy()
    task = replace(task, classes=(*task.classes, "no shots"))
    rows, labels = task.support.x, task.support.labels
    weight, offset = ops.discriminant(rows, labels, 5)
    assert bool(torch.isfinite(offset).all())
    share = torch.bincount(labels).double() / len(labels)  # the weights are linear in the means
    torch.testing.assert_close(weight[4], share @ weight[:4], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 100.0])
def test_without_texts_the_discriminant_stands_alone(toy: Any, alpha: float) -> None:
    task, x = toy(text=False)
    expected = naive(x, task.support.x, task.support.labels, task.c)
    torch.testing.assert_close(logits(task, x, alpha=alpha), expected, rtol=1e-11, atol=1e-9)
    task, x = toy()
    got = logits(task, x, gda.Config(fusion=False), alpha=alpha)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-9)


def test_a_kind_of_text_that_is_asked_for_is_not_left_out(toy: Any) -> None:
    task, x = toy(text=False)
    with pytest.raises(MissingComponentError, match=r"gda.*needs class texts"):
        logits(task, x, gda.Config(text="name"))


@pytest.mark.parametrize("views", [0, 3])
def test_without_texts_and_scatter_the_nearest_mean_answers(toy: Any, views: int) -> None:
    task, x = toy(counts=(1, 1, 1, 1), text=False)
    if views:
        same = task.support.x[:, None].repeat(1, views, 1)
        task = replace(task, support=replace(task.support, kinds={Kind("views", "rrc50"): same}))
    distance = (x[:, None] - task.support.x[None]).norm(dim=-1)  # [n m]
    assert task.support.labels is not None
    assert torch.equal(logits(task, x).argmax(1), task.support.labels[distance.argmin(1)])


def test_the_nearest_mean_orders_by_distance(toy: Any) -> None:
    task, x = toy(counts=(2, 3, 1, 4), text=False)
    rows, labels = task.support.x, task.support.labels
    assert labels is not None
    means = torch.stack([rows[labels == c].mean(0) for c in range(4)])
    weight, offset = ops.nearest_mean(rows, labels, 5)
    distance = (x[:, None] - means[None]).square().sum(-1)
    expected = (x.square().sum(1, keepdim=True) - distance) / 2
    torch.testing.assert_close((x @ weight.mT + offset)[:, :4], expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(weight[4], rows.mean(0))  # a class without rows


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_order_of_shots_and_repeating_all_do_not_matter(toy: Any, seed: int) -> None:
    task, x = toy(seed)
    order = torch.randperm(len(task.support.x), generator=torch.Generator().manual_seed(seed))
    rows = task.support
    mixed = replace(task, support=replace(rows, x=rows.x[order], labels=rows.labels[order]))
    torch.testing.assert_close(logits(task, x), logits(mixed, x), rtol=1e-9, atol=1e-9)


def test_grid_is_the_released_one() -> None:
    assert gda.METHOD.post_grid.axes == {"alpha": [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]}


GOLDEN = [
    ("caltech50", "train4", "caltech50_4shot"),
    ("caltech50", "train16", "caltech50_16shot"),
    ("imagenet256", "train", "imagenet256_4shot"),
]


@pytest.mark.parametrize(("name", "support", "golden"), GOLDEN)
def test_golden(
    name: str, support: str, golden: str, features: Any, shared: Callable[[str], Path]
) -> None:
    # mrflogs/ICLR24@560fe21 main_few_shots.py, float32 with its pseudo-inverse; and in float64
    task, x, _ = features(name, support)
    file = np.load(shared(f"golden/gda_alpha1_{golden}.npz"))
    got = logits(task, x, alpha=1.0).numpy()
    exact = file["logits_float64_recomputed"]
    assert np.abs(got - file["logits"]).max() < 1e-4 * np.ptp(exact)  # as the file's note says
    assert np.abs(got - exact).max() < 2.5e-3
    double = replace(task, support=replace(task.support, x=task.support.x.double()))
    got = logits(double, x.double(), alpha=1.0).numpy()
    assert np.abs(got - exact).max() < 1e-6 * np.abs(exact).max()
