import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.contract.rows import Kind, Rows, TaskView
from heads.contract.settings import Grid
from heads.methods import tip_adapter

CONFIG = tip_adapter.Config()


def logits(
    task: TaskView, x: Tensor, config: tip_adapter.Config = CONFIG, **values: float
) -> Tensor:
    hyper = tip_adapter.Hyper(**values)
    params, fixed = tip_adapter.prepare(task, config, hyper)
    terms = tip_adapter.terms(params, fixed, Rows.of(x), config, hyper)
    return tip_adapter.combine(terms, fixed, config, hyper)


def naive(
    x: Tensor, keys: Tensor, labels: Tensor, anchors: Tensor, alpha: float, beta: float
) -> Tensor:
    """Equation (1) one scalar at a time, in float64; the toy's scale is 20."""
    out = [[20.0 * float(q @ t) for t in anchors] for q in x]
    for row, q in zip(out, x, strict=True):
        for key, label in zip(keys, labels.tolist(), strict=True):
            row[label] += alpha * math.exp(-beta * (1 - float(q @ key)))
    return torch.tensor(out, dtype=torch.float64)


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy()
    anchors = task.text.anchors().double()
    for alpha, beta in [(1.0, 5.5), (2.5, 0.3)]:
        expected = naive(x, task.support.x, task.support.labels, anchors, alpha, beta)
        assert torch.allclose(logits(task, x, alpha=alpha, beta=beta), expected, atol=1e-10)


def test_keys_by_variant(toy: Any, with_lengths: Any) -> None:
    task, x = toy(views=3)
    task = with_lengths(task)
    views = task.support.kinds[Kind("views", "rrc50")]
    raw = views * task.support.lengths[Kind("views", "rrc50")][..., None]
    anchors = task.text.anchors().double()
    for config, rows in ((tip_adapter.Config(variant="paper"), views), (CONFIG, raw)):
        keys = torch.stack([sum(v[j] for j in range(3)) / 3 for v in rows])
        keys = torch.stack([k / k.norm() for k in keys])
        expected = naive(x, keys, task.support.labels, anchors, 1.0, 5.5)
        assert torch.allclose(logits(task, x, config), expected, atol=1e-10)


def test_alpha_zero_is_zero_shot(toy: Any) -> None:
    task, x = toy()
    zero_shot = 20.0 * x @ task.text.anchors().double().T
    assert torch.allclose(logits(task, x, alpha=0.0), zero_shot, atol=1e-12)


def test_beta_zero_counts_shots(toy: Any) -> None:
    task, x = toy(counts=(3, 1, 4, 2))
    votes = logits(task, x, alpha=1.0, beta=0.0) - logits(task, x, alpha=0.0)
    assert torch.allclose(votes, torch.tensor([3.0, 1, 4, 2]).double().expand_as(votes))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_order_of_shots_does_not_matter(toy: Any, seed: int) -> None:
    task, x = toy(seed)
    order = torch.randperm(len(task.support.x), generator=torch.Generator().manual_seed(seed))
    rows = task.support
    mixed = Rows(x=rows.x[order], norms=rows.norms, labels=rows.labels[order])
    again = TaskView(support=mixed, pool=None, text=task.text, classes=task.classes, seed=0)
    assert torch.allclose(logits(task, x), logits(again, x), atol=1e-12)


def test_grid_is_the_released_one() -> None:
    axes = tip_adapter.METHOD.post_grid.axes
    assert list(axes) == ["beta", "alpha"]  # the cheap axis last
    assert (len(axes["beta"]), len(axes["alpha"])) == (200, 20)
    assert axes["beta"][0] == axes["alpha"][0] == 0.1
    assert axes["beta"][1] == pytest.approx(0.1 + 11.9 / 200)
    assert axes["alpha"][-1] == pytest.approx(0.1 + 19 * 4.9 / 20)


@pytest.mark.parametrize(
    ("name", "support", "golden"),
    [
        ("caltech50", "train1", "caltech50_1shot"),
        ("caltech50", "train4", "caltech50_4shot"),
        ("caltech50", "train16", "caltech50_16shot"),
        ("imagenet256", "train", "imagenet256_4shot"),
    ],
)
def test_golden(
    name: str, support: str, golden: str, features: Any, shared: Callable[[str], Path]
) -> None:
    # gaopengcuhk/Tip-Adapter@d0e2d6f main.py, float32
    task, x, _ = features(name, support)
    expected = np.load(shared(f"golden/tip_a1_b5.5_{golden}.npz"))["logits"]
    assert np.abs(logits(task, x, alpha=1.0, beta=5.5).numpy() - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "support", "ends", "top1"),
    [
        ("caltech50", "train1", (12, 5), 96.67),
        ("caltech50", "train4", (12, 5), 97.36),
        ("caltech50", "train16", (12, 5), 96.81),
        ("imagenet256", "train", (7, 3), 72.27),
    ],
)
def test_the_released_search_gives_the_released_top1(
    name: str, support: str, ends: tuple[float, float], top1: float, released_search: Any
) -> None:
    """With the released grid of the data set; of equal points the released code takes the first."""
    beta, alpha = ends
    axes = {
        "beta": [0.1 + i * (beta - 0.1) / 200 for i in range(200)],
        "alpha": [0.1 + i * (alpha - 0.1) / 20 for i in range(20)],
    }
    assert released_search(tip_adapter.METHOD, name, support, Grid(axes), "beta", "alpha") == top1
