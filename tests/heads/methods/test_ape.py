import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.contract.rows import Kind, Rows, TaskView
from heads.contract.settings import Grid
from heads.methods import ape

CONFIG = ape.Config(channels=4)


def logits(task: TaskView, x: Tensor, config: ape.Config = CONFIG, **values: float) -> Tensor:
    hyper = ape.Hyper(**values)
    params, fixed = ape.prepare(task, config, hyper)
    terms = ape.terms(params, fixed, Rows.of(x), config, hyper)
    return ape.combine(terms, fixed, config, hyper)


def naive(
    x: np.ndarray,
    keys: np.ndarray,
    labels: list[int],
    anchors: np.ndarray,
    alpha: float,
    beta: float,
    gamma: float,
    omega: float,
    kept: int,
) -> np.ndarray:
    """Equations (1) to (3) one scalar at a time; the toy's scale is 20."""
    d, c = keys.shape[1], len(anchors)
    rows = [*zip(labels, keys, strict=True), *enumerate(anchors)]
    criterion = []
    for q in range(d):
        pairs = [x[q] * y[q] for i, x in rows for j, y in rows if i != j]
        mean = sum(anchors[:, q]) / c
        variance = sum((t - mean) ** 2 for t in anchors[:, q]) / (c - 1)
        criterion.append(-omega * sum(pairs) / len(pairs) + (1 - omega) * variance)
    chosen = sorted(range(d), key=lambda q: -criterion[q])[:kept]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a[chosen], b[chosen]
        return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))

    out = np.array([[20.0 * float(row @ t) for t in anchors] for row in x])
    for key, label in zip(keys, labels, strict=True):
        scores = [math.exp(cosine(key, t)) for t in anchors]
        p = scores[label] / sum(scores)
        own = math.exp(gamma * 1.0 * math.log2((1 + 1e-6) / (p + 1e-6)))
        for i, row in enumerate(x):
            out[i, label] += alpha * math.exp(-beta * (1 - cosine(row, key))) * own
    return out


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "omega"), [(1.0, 1.0, 0.1, 0.7), (2.5, 4.0, 0.9, 0.2)]
)
def test_logits_equal_naive_loops(
    toy: Any, alpha: float, beta: float, gamma: float, omega: float
) -> None:
    task, x = toy(d=7)
    labels = task.support.labels.tolist()
    anchors = task.text.anchors().double().numpy()
    values: dict[str, Any] = {"alpha": alpha, "beta": beta, "gamma": gamma, "omega": omega}
    keys = task.support.x.numpy()
    expected = naive(x.numpy(), keys, labels, anchors, **values, kept=4)
    np.testing.assert_allclose(logits(task, x, **values).numpy(), expected, atol=1e-9)


def test_all_channels_and_equal_weights_are_tip_adapter(toy: Any) -> None:
    task, x = toy(d=6)
    got = logits(task, x, ape.Config(channels=6), alpha=1.5, beta=3.0, gamma=0.0)
    votes = torch.exp(-3.0 * (1 - x @ task.support.x.T))
    one_hot = torch.nn.functional.one_hot(task.support.labels, 4).double()
    expected = 20.0 * x @ task.text.anchors().double().T + 1.5 * votes @ one_hot
    assert torch.allclose(got, expected, atol=1e-10)


def test_alpha_zero_is_zero_shot_on_all_channels(toy: Any) -> None:
    task, x = toy()
    expected = 20.0 * x @ task.text.anchors().double().T
    assert torch.allclose(logits(task, x, alpha=0.0), expected, atol=1e-12)


def test_keys_by_variant(toy: Any, with_lengths: Any) -> None:
    task, x = toy(views=3)
    task = with_lengths(task)
    views = task.support.kinds[Kind("views", "rrc50")]
    lengths = task.support.lengths[Kind("views", "rrc50")]
    variants: dict[Any, Tensor] = {"paper": views, "code": views * lengths[..., None]}
    for variant, rows in variants.items():
        keys = torch.nn.functional.normalize(rows.mean(1), dim=-1)
        got = logits(task, x, ape.Config(channels=6, variant=variant), gamma=0.0, beta=2.0)
        votes = torch.exp(-2.0 * (1 - x @ keys.T))
        one_hot = torch.nn.functional.one_hot(task.support.labels, 4).double()
        expected = 20.0 * x @ task.text.anchors().double().T + votes @ one_hot
        assert torch.allclose(got, expected, atol=1e-10)


def test_released_grid() -> None:
    axes = ape.METHOD.post_grid.axes
    assert list(axes) == ["gamma", "beta", "alpha"]  # the cheap axis last
    assert [len(v) for v in axes.values()] == [10, 200, 20]
    assert axes["beta"][1] == pytest.approx(0.1 + 6.9 / 200)
    assert axes["alpha"][19] == pytest.approx(0.1 + 19 * 6.9 / 20)
    assert axes["gamma"][:3] == [0.0, 0.1, 0.2]
    assert ape.Hyper() == ape.Hyper(alpha=1.0, beta=1.0, gamma=0.1, omega=0.7)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "support", "omega", "gammas", "top1"),
    [
        ("caltech50", "train1", 0.5, [i / 20 for i in range(20)], 96.81),
        ("caltech50", "train4", 0.5, [i / 20 for i in range(20)], 97.78),
        ("caltech50", "train16", 0.5, [i / 20 for i in range(20)], 97.43),
        ("imagenet256", "train", 0.7, [i / 10 for i in range(5)], 73.24),
    ],
)
def test_the_released_search_gives_the_released_top1(
    name: str, support: str, omega: float, gammas: list[float], top1: float, released_search: Any
) -> None:
    """With the released omega and grid of the data set; of equal points the first is taken."""
    grid = Grid({**ape.METHOD.post_grid.axes, "gamma": gammas})
    order = ("beta", "alpha", "gamma")
    assert released_search(ape.METHOD, name, support, grid, *order, omega=omega) == top1
