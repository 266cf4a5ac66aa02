import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from heads.contract.rows import Kind, Rows, TaskView
from heads.methods import proker

Variant = Literal["code", "paper"]


def logits(task: TaskView, x: Tensor, config: Any = None, **values: float) -> Tensor:
    config = config or proker.Config()
    hyper = proker.Hyper(**values)
    params, fixed = proker.prepare(task, config, hyper)
    terms = proker.terms(params, fixed, Rows.of(x), config, hyper)
    return proker.combine(terms, fixed, config, hyper)


def kernel(a: Tensor, b: Tensor, beta: float) -> Tensor:
    return torch.tensor(
        [[math.exp(-beta * (1 - float(x @ z))) for z in b] for x in a], dtype=torch.float64
    )


def direct(
    task: TaskView, rows: Tensor, labels: Tensor, x: Tensor, beta: float, lam: float, variant: str
) -> Tensor:
    """Equations (1) to (3) by one dense solve."""
    assert task.text is not None
    anchors = task.text.anchors().double()
    k = kernel(rows, rows, beta)
    residual = -rows @ anchors.T
    for i, label in enumerate(labels.tolist()):
        residual[i, label] += 1
    eye = torch.eye(len(rows)).double()
    system = k / lam + eye if variant == "code" else k + lam * eye
    solved: Tensor = torch.linalg.solve(system, residual)
    return x @ anchors.T + kernel(x, rows, beta) @ solved


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize(("beta", "lam"), [(1.7, 0.1), (0.5, 0.001), (3.0, 10.0), (0.0, 0.3)])
def test_logits_equal_a_direct_solve(toy: Any, variant: Variant, beta: float, lam: float) -> None:
    task, x = toy()
    config = proker.Config(variant=variant)
    expected = direct(task, task.support.x, task.support.labels, x, beta, lam, variant)
    got = logits(task, x, config, beta=beta, lam=lam)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_equals_scikit_learns_kernel_ridge(toy: Any) -> None:
    """(3) is kernel ridge regression of what zero-shot leaves; exp(-b/2 |x - z|^2) is its rbf."""
    task, x = toy()
    anchors = task.text.anchors().double()
    one_hot = torch.eye(task.c).double()[task.support.labels]
    fitted = KernelRidge(alpha=0.2, kernel="rbf", gamma=1.7 / 2)
    fitted.fit(task.support.x.numpy(), (one_hot - task.support.x @ anchors.T).numpy())
    expected = (x @ anchors.T).numpy() + fitted.predict(x.numpy())
    got = logits(task, x, proker.Config(variant="paper"), beta=1.7, lam=0.2).numpy()
    assert np.abs(got - expected).max() < 1e-9


def test_the_released_correction_is_lam_times_the_papers(toy: Any) -> None:
    task, x = toy()
    zero_shot = x @ task.text.anchors().double().T
    code = logits(task, x, beta=1.2, lam=0.05) - zero_shot
    paper = logits(task, x, proker.Config(variant="paper"), beta=1.2, lam=0.05) - zero_shot
    torch.testing.assert_close(code, 0.05 * paper, rtol=1e-9, atol=1e-12)


def test_little_pull_fits_the_shots_and_much_pull_leaves_zero_shot(toy: Any) -> None:
    task, x = toy()
    paper = proker.Config(variant="paper")
    one_hot = torch.eye(task.c).double()[task.support.labels]
    fitted = logits(task, task.support.x, paper, beta=3.0, lam=1e-9)
    torch.testing.assert_close(fitted, one_hot, rtol=0, atol=1e-5)
    zero_shot = x @ task.text.anchors().double().T
    far = logits(task, x, paper, beta=3.0, lam=1e9)
    torch.testing.assert_close(far, zero_shot, rtol=0, atol=1e-7)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_order_of_shots_does_not_matter(toy: Any, seed: int) -> None:
    task, x = toy(seed)
    order = torch.randperm(len(task.support.x), generator=torch.Generator().manual_seed(seed))
    rows = task.support
    mixed = replace(task, support=replace(rows, x=rows.x[order], labels=rows.labels[order]))
    torch.testing.assert_close(logits(task, x), logits(mixed, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("most", "kept"), [(1000, 3), (29, 2), (20, 2), (19, 1), (1, 1)])
def test_views_are_points_while_there_is_room(toy: Any, most: int, kept: int) -> None:
    task, x = toy(views=3)  # 10 shots
    rows = task.support.kinds[Kind("views", "rrc50")][:, :kept].reshape(-1, 6)
    labels = torch.tensor([y for y in task.support.labels.tolist() for _ in range(kept)])
    got = logits(task, x, proker.Config(points=most), beta=1.7, lam=0.1)
    expected = direct(task, rows, labels, x, 1.7, 0.1, "code")
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_float32_rows_are_solved_in_float64(toy: Any) -> None:
    task, x = toy()
    single = replace(task, support=replace(task.support, x=task.support.x.float()))
    gap = logits(single, x.float(), beta=0.5, lam=0.001).double()
    gap -= logits(task, x, beta=0.5, lam=0.001)
    assert float(gap.abs().max()) < 1e-5


def test_defaults_are_those_fixed_from_imagenet_by_shots() -> None:
    assert proker.defaults(1) == {"beta": 3.0, "lam": 0.05}
    assert proker.defaults(5) == {"beta": 1.5, "lam": 0.05}
    assert proker.defaults(8) == {"beta": 1.66, "lam": 0.07}
    assert proker.defaults(None) == proker.defaults(100) == {"beta": 1.7, "lam": 0.1}
    assert proker.Hyper() == proker.Hyper(**proker.defaults(16))


def test_grid_is_the_released_one() -> None:
    assert np.allclose(proker.METHOD.train_grid.axes["beta"], np.linspace(0.5, 3, 20))
    assert np.allclose(proker.METHOD.train_grid.axes["lam"], np.linspace(0.001, 1, 10))


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_a_scout_is_exact_where_it_solves(toy: Any, variant: Variant) -> None:
    """Up to the nodes' number of values nothing is interpolated; a tiny lam needs float64."""
    task, x = toy()
    config = proker.Config(variant=variant)
    points = [proker.Hyper(beta=b, lam=m) for b in (0.5, 1.7, 3.0) for m in (1e-6, 0.01, 1.0)]
    found = list(proker.scout(task, config)(points, x))
    for point, got in zip(points, found, strict=True):
        labels = task.support.labels
        expected = direct(task, task.support.x, labels, x, point.beta, point.lam, variant)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_scout_knows_the_whole_grid(toy: Any) -> None:
    task, x = toy(counts=(6, 5, 7, 6), d=24, n=40)
    points = [proker.Hyper(**point) for point in proker.METHOD.train_grid]
    scout = proker.scout(task, proker.Config())
    found = torch.stack(list(scout(points, x)))
    exact = torch.stack([logits(task, x, beta=p.beta, lam=p.lam) for p in points])
    assert float((found - exact).abs().max()) < 3e-3
    assert float((exact[0] - exact[-1]).abs().max()) > 0.1  # of a grid that changes them
    again = torch.stack(list(scout(points[::-1], x)))
    assert torch.equal(again.flip(0), found)


def test_equal_points_and_a_tiny_lam_have_an_answer(toy: Any) -> None:
    task, x = toy()
    rows = task.support
    doubled = {n: torch.cat([getattr(rows, n)] * 2) for n in ("x", "norms", "labels")}
    twice = replace(rows, **doubled)
    got = logits(replace(task, support=twice), x, lam=1e-300)
    assert bool(torch.isfinite(got).all())


@pytest.mark.parametrize(
    ("name", "support", "released"),
    [
        ("caltech50", "train1", 96.32),
        ("caltech50", "train4", 98.27),
        ("caltech50", "train16", 97.71),
        ("imagenet256", "train", 73.83),
    ],
)
def test_released_accuracy_at_the_released_choice(
    name: str, support: str, released: float, features: Any
) -> None:
    # beta and lam that the released search finds first on val; omarnust/BReg-Adapter@035b684
    chosen = {
        "train1": (0.7631579, 0.112),
        "train4": (1.1578947, 0.112),
        "train16": (0.8947368, 0.223),
        "train": (0.6315789, 0.223),
    }
    task, x, y = features(name, support)
    beta, lam = chosen[support]
    right = (logits(task, x, beta=beta, lam=lam).argmax(-1) == y).double().mean()
    assert 100 * float(right) == pytest.approx(released, abs=0.2)
