from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import Kind, Rows, TaskView
from heads.methods import linear_probe

CONFIG = linear_probe.Config()


def task_of(x: Tensor, y: Tensor, weights: Tensor | None = None) -> TaskView:
    rows = Rows(x=x, norms=torch.ones(len(x)), labels=y, weights=weights)
    names = tuple(f"c{i}" for i in range(int(y.max()) + 1))
    return TaskView(support=rows, pool=None, text=None, classes=names, seed=0)


def logits(task: TaskView, x: Tensor, strength: float) -> Tensor:
    hyper = linear_probe.Hyper(C=strength)
    params, fixed = linear_probe.prepare(task, CONFIG, hyper)
    terms = linear_probe.terms(params, fixed, Rows.of(x), CONFIG, hyper)
    return linear_probe.METHOD.combine(terms, fixed, CONFIG, hyper)


def clustered(seed: int, n: int, d: int, c: int) -> tuple[Tensor, Tensor]:
    """Draw rows that share a large common direction, as CLIP's do."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % c
    x = torch.randn(c, d, generator=rng)[y] + torch.randn(n, d, generator=rng) + 4.0
    return F.normalize(x, dim=-1), y


@pytest.mark.parametrize("strength", [0.003, 0.1, 10.0, 1000.0])
@pytest.mark.parametrize(("n", "d"), [(60, 12), (15, 40)])
def test_equals_scikit_learn(strength: float, n: int, d: int) -> None:
    x, y = clustered(0, n, d, 5)
    fitted = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000)
    fitted.fit(x.double().numpy(), y.numpy())
    expected = fitted.decision_function(x.double().numpy())
    got = logits(task_of(x, y), x, strength).numpy()
    # a constant added to all logits of a row is free
    got, expected = (a - a.mean(axis=1, keepdims=True) for a in (got, expected))
    assert np.abs(got - expected).max() < min(1e-3, 0.01 * np.abs(expected).max())


def test_class_weights_are_scikit_learns() -> None:
    x, y = clustered(1, 40, 8, 4)
    keep = torch.cat([torch.arange(0, 40, 4), torch.arange(40)[y != 0][:9]])
    x, y = x[keep], y[keep]
    y = torch.unique(y, return_inverse=True)[1]
    share = len(y) / (torch.bincount(y) * len(torch.bincount(y)))
    fitted = LogisticRegression(C=10.0, class_weight="balanced", tol=1e-10, max_iter=100_000)
    expected = fitted.fit(x.double().numpy(), y.numpy()).decision_function(x.double().numpy())
    got = logits(task_of(x, y, weights=share[y].float()), x, 10.0).numpy()
    got, expected = (a - a.mean(axis=1, keepdims=True) for a in (got, expected))
    assert np.abs(got - expected).max() < 1e-3


def test_slope_of_the_problem_is_zero_in_loops() -> None:
    x, y = clustered(2, 12, 4, 3)
    strength = 5.0
    params, _ = linear_probe.prepare(task_of(x, y), CONFIG, linear_probe.Hyper(C=strength))
    weight, bias = params["weight"].double(), params["bias"].double()
    for c in range(3):
        slope, offset = weight[c].clone(), 0.0
        for row, label in zip(x.double(), y.tolist(), strict=True):
            p = float(torch.softmax(weight @ row + bias, 0)[c])
            slope += strength * (p - (label == c)) * row
            offset += strength * (p - (label == c))
        assert float(slope.abs().max()) < 1e-3
        assert abs(offset) < 1e-3


def test_strong_penalty_leaves_the_class_frequencies() -> None:
    x, y = clustered(3, 30, 6, 3)
    y = torch.where(torch.arange(30) < 20, 0, y)
    got = torch.softmax(logits(task_of(x, y), x, 1e-8), dim=1)
    frequency = torch.bincount(y, minlength=3) / 30
    assert torch.allclose(got, frequency.expand_as(got), atol=1e-4)


def test_stopping_early_is_said() -> None:
    x, y = clustered(4, 30, 6, 3)
    short = linear_probe.Config(max_iter=2)
    with pytest.warns(UserWarning, match="raise max_iter or lower C"):
        linear_probe.prepare(task_of(x, y), short, linear_probe.Hyper(C=1e4))


def test_texts_and_views_are_not_read() -> None:
    x, y = clustered(5, 20, 6, 4)
    task = task_of(x, y)
    with_views = replace(task.support, kinds={Kind("views"): torch.zeros(20, 2, 6)})
    params, _ = linear_probe.prepare(task, CONFIG, linear_probe.Hyper())
    again, _ = linear_probe.prepare(replace(task, support=with_views), CONFIG, linear_probe.Hyper())
    assert torch.equal(params["weight"], again["weight"])


def test_grid_is_the_released_one() -> None:
    grid = linear_probe.METHOD.train_grid
    assert grid.axes == {"C": [1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6]}
    assert grid.refine == 8


def test_a_scout_nearly_solves_every_point(toy: Any) -> None:
    task, x = toy(counts=(9, 8, 10, 9), d=12, n=30)
    points = [linear_probe.Hyper(C=c) for c in (1e-6, 1e-2, 1.0, 1e2, 1e4, 30.0, 40.0, 1e2)]
    scout = linear_probe.scout(task, linear_probe.Config())
    for point, got in zip(points, scout(points, x), strict=True):
        params, _ = linear_probe.prepare(task, linear_probe.Config(), point)
        exact = x @ params["weight"].T + params["bias"]
        assert float((got - exact).abs().max()) < 0.05 * float(exact.abs().max())
    assert torch.equal(*(next(iter(scout(points[-1:], x))) for _ in range(2)))


@pytest.mark.parametrize(("support", "strength"), [("train4", 100.0), ("train16", 10.0)])
def test_objective_and_accuracy_are_scikit_learns(
    support: str, strength: float, features: Any
) -> None:
    task, x, y = features("caltech50", support)
    rows, labels = task.support.x.double(), task.support.labels
    theirs = LogisticRegression(C=strength, max_iter=10_000, tol=1e-5)
    theirs.fit(rows.numpy(), labels.numpy())
    params, _ = linear_probe.prepare(task, CONFIG, linear_probe.Hyper(C=strength))

    def objective(weight: Tensor, bias: Tensor) -> float:
        fit = F.cross_entropy(rows @ weight.double().mT + bias.double(), labels)
        return float(fit + weight.double().square().sum() / (2 * strength * len(rows)))

    reached = objective(*map(torch.from_numpy, (theirs.coef_, theirs.intercept_)))
    assert objective(params["weight"], params["bias"]) <= reached * (1 + 1e-6)
    ours = (logits(task, x, strength).argmax(-1) == y).double().mean()
    assert abs(float(ours) - theirs.score(x.double().numpy(), y.numpy())) < 1e-3 + 1 / len(y)
