from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from heads.ops.logistic import RoughPath, logistic_regression, principal


def rows(seed: int, n: int, d: int, c: int, *, common: float = 4.0) -> tuple[Tensor, Tensor]:
    """Draw unit rows that share a large direction, as CLIP's do."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % c
    x = torch.randn(c, d, generator=rng)[y] + torch.randn(n, d, generator=rng) + common
    return F.normalize(x.double(), dim=-1), y


def value(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, w: Tensor, strength: float) -> float:
    """Equation (1), row by row."""
    total = 0.0
    for row, label, share in zip(x, y.tolist(), w.tolist(), strict=True):
        scores = weight @ row + bias
        total += share * float(scores.logsumexp(0) - scores[label])
    return total / len(x) + float(weight.square().sum()) / (2 * strength * len(x))


@pytest.mark.parametrize("strength", [1e-6, 1e-2, 1.0, 10.0, 1e4, 1e6])
@pytest.mark.parametrize(("n", "d"), [(80, 10), (20, 40)])
def test_value_is_the_least_that_scipy_finds(strength: float, n: int, d: int) -> None:
    x, y = rows(0, n, d, 4)
    w = torch.rand(n, generator=torch.Generator().manual_seed(1)).double() + 0.5
    weight, bias, left = logistic_regression(x, y, w, 4, strength, max_iter=2000)
    assert left < 1e-8

    def both(flat: Any) -> tuple[float, Any]:
        theta = torch.from_numpy(flat).reshape(4, d + 1).requires_grad_()
        scores = (x - x.mean(0)) @ theta[:, :-1].mT + theta[:, -1]
        fit = w @ F.cross_entropy(scores, y, reduction="none") / n
        total = fit + theta[:, :-1].square().sum() / (2 * strength * n)
        (slope,) = torch.autograd.grad(total, theta)
        return float(total.detach()), slope.numpy().ravel()

    start = torch.cat([weight, (bias + weight @ x.mean(0))[:, None]], 1).numpy().ravel()
    options = {"maxiter": 500, "ftol": 1e-15, "gtol": 1e-12}
    best = minimize(both, start, jac=True, method="L-BFGS-B", options=options).fun
    ours = value(weight, bias, x, y, w, strength)
    assert ours == pytest.approx(best, rel=1e-7)


@pytest.mark.parametrize("strength", [1e-300, 1e300])
def test_penalties_beyond_all_measure_give_a_head(strength: float) -> None:
    x, y = rows(0, 4, 8, 4)
    ones = torch.ones(4).double()
    weight, bias, _ = logistic_regression(x, y, ones, 4, strength, max_iter=60)
    rough, intercepts = RoughPath(x, y, ones, 4, max_iter=60).solve(strength)
    assert all(bool(t.isfinite().all()) for t in (weight, bias, rough, intercepts))
    if strength > 1:
        assert (x @ weight.mT + bias).argmax(1).tolist() == y.tolist()


@pytest.mark.parametrize("strength", [0.1, 10.0, 1e4])
def test_same_head_as_scikit_learns(strength: float) -> None:
    x, y = rows(2, 60, 12, 3)
    theirs = LogisticRegression(C=strength, tol=1e-11, max_iter=100_000).fit(x.numpy(), y.numpy())
    weight, bias, _ = logistic_regression(x, y, torch.ones(60).double(), 3, strength)
    expected = theirs.predict_proba(x.numpy())
    got = torch.softmax(x @ weight.mT + bias, 1).numpy()
    assert np.abs(got - expected).max() < 1e-4


def test_a_common_direction_changes_nothing() -> None:
    x, y = rows(3, 30, 8, 3)
    far = x + 50.0
    plain = logistic_regression(x, y, torch.ones(30).double(), 3, 10.0)
    moved = logistic_regression(far, y, torch.ones(30).double(), 3, 10.0)
    torch.testing.assert_close(plain[0], moved[0], rtol=1e-3, atol=1e-4)


def test_rows_all_alike_give_the_class_frequencies() -> None:
    x = torch.ones(6, 3).double()
    y = torch.tensor([0, 0, 0, 0, 1, 2])
    weight, bias, _ = logistic_regression(x, y, torch.ones(6).double(), 3, 1.0)
    got = torch.softmax(x @ weight.mT + bias, 1)[0]
    assert torch.allclose(got, torch.tensor([4.0, 1, 1]).double() / 6, atol=1e-4)


def test_what_is_left_is_told() -> None:
    x, y = rows(4, 40, 8, 4)
    ones = torch.ones(40).double()
    _, _, early = logistic_regression(x, y, ones, 4, 1e4, max_iter=1)
    _, _, late = logistic_regression(x, y, ones, 4, 1e4)
    assert late < 1e-8 < 1e-3 < early


@pytest.mark.parametrize(("n", "d"), [(9, 4), (4, 9), (6, 6)])
def test_principal_coordinates(n: int, d: int) -> None:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coordinates, axes = principal(x)
    assert torch.allclose(coordinates @ axes, x, atol=1e-10)
    assert torch.allclose(axes @ axes.mT, torch.eye(len(axes)).double(), atol=1e-10)
    gram = coordinates.mT @ coordinates
    assert torch.allclose(gram, gram.diagonal().diag(), atol=1e-10)
