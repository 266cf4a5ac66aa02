"""Pools, temperatures and greedy weights against slow loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.ops.pooling import greedy_weights, log_pool, mean_pool, temperature


def made(m: int = 3, n: int = 12, c: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits [m n c] that know something of the labels, and the labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(c, (n,), generator=rng)
    logits = torch.randn(m, n, c, generator=rng, dtype=torch.float64)
    logits += 1.5 * torch.nn.functional.one_hot(labels, c)
    return logits, labels


def cross_entropy(p: np.ndarray, labels: list[int]) -> float:
    return -sum(math.log(p[i, y]) for i, y in enumerate(labels)) / len(labels)


def test_pools_are_those_of_loops() -> None:
    logits, _ = made()
    p = logits.softmax(-1)
    weights = [0.5, 0.2, 0.3]
    mean, log = (
        pool(p.log(), torch.tensor(weights).double()).exp() for pool in (mean_pool, log_pool)
    )
    for i in range(p.shape[1]):
        product = [math.prod(float(p[m, i, c]) ** weights[m] for m in range(3)) for c in range(4)]
        for c in range(4):
            expected = sum(weights[m] * float(p[m, i, c]) for m in range(3))
            assert float(mean[i, c]) == pytest.approx(expected)
            assert float(log[i, c]) == pytest.approx(product[c] / sum(product))


def test_a_member_of_weight_zero_changes_nothing() -> None:
    log_p = made(m=2)[0].log_softmax(-1)
    weights = torch.tensor([1.0, 0.0]).double()
    for pool in (mean_pool, log_pool):
        torch.testing.assert_close(pool(log_p, weights), log_p[0])


def test_temperature_has_the_smallest_cross_entropy() -> None:
    for seed in range(5):
        (logits,), labels = made(m=1, seed=seed)
        n, c = logits.shape
        target = torch.nn.functional.one_hot(labels, c) * (1 - 1 / (n + 2)) + 1 / (n + 2) / c

        def loss(t: float, z: Tensor = logits, target: Tensor = target) -> float:
            return -float((target * (z / t).log_softmax(-1)).sum(-1).mean())

        found = temperature(logits, labels)
        grid = [2.0**e for e in np.linspace(-8, 8, 4001)]
        assert found == pytest.approx(min(grid, key=loss), rel=2e-3)
        assert temperature(1000 * logits, labels) == pytest.approx(1000 * found)


def test_temperature_of_extremes_is_finite() -> None:
    eye = 5 * torch.eye(4)
    sure = temperature(eye, torch.arange(4))
    assert 0 < sure < 5  # right everywhere: sharper, by the smoothing not a step function
    assert temperature(eye, (torch.arange(4) + 1) % 4) > 1e6  # wrong everywhere: uniform
    assert temperature(torch.ones(4, 4), torch.arange(4)) == 1.0


def test_greedy_weights_are_those_of_loops() -> None:
    for seed in range(4):
        logits, labels = made(m=4, n=9, seed=seed)
        p = logits.softmax(-1).numpy()
        bag: list[int] = []
        best, expected = math.inf, np.zeros(4)
        for _ in range(12):
            losses = [
                cross_entropy(p[[*bag, m]].mean(axis=0), labels.tolist()) for m in range(len(p))
            ]
            bag.append(int(np.argmin(losses)))
            if min(losses) < best - 1e-12:
                best, expected = min(losses), np.bincount(bag, minlength=4) / len(bag)
        found = greedy_weights(logits.log_softmax(-1), labels, 12)
        np.testing.assert_allclose(found.numpy(), expected)


def test_greedy_is_no_worse_on_its_rows_than_the_best_member() -> None:
    logits, labels = made(m=5)
    log_p = logits.log_softmax(-1)
    alone = [cross_entropy(one.exp().numpy(), labels.tolist()) for one in log_p]
    pooled = mean_pool(log_p, greedy_weights(log_p, labels, 30))
    assert cross_entropy(pooled.exp().numpy(), labels.tolist()) <= min(alone) + 1e-12


def test_greedy_takes_rows_that_no_member_gives_any_probability() -> None:
    log_p = torch.tensor([[[0.0, -torch.inf]], [[-1.0, -2000.0]]])
    assert greedy_weights(log_p, torch.tensor([1]), 3).sum() == 1
