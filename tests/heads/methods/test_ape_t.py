import math
from typing import Any

import numpy as np
import pytest
import torch

from heads.contract.rows import Rows
from heads.contract.stages import Sizes
from heads.methods import ape_t

CONFIG = ape_t.Config(channels=3)
HYPER = ape_t.Hyper(alpha=1.5, beta=2.0)


def moved(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    return {n: p + 0.3 * torch.randn(p.shape, generator=rng).double() for n, p in params.items()}


def naive(
    x: torch.Tensor, params: dict[str, torch.Tensor], fixed: dict[str, torch.Tensor]
) -> np.ndarray:
    """Equations (1) and (2) one scalar at a time; the toy's scale is 20."""
    labels, residual = fixed["labels"].tolist(), params["residual"]
    texts, keys = fixed["anchors"].clone(), fixed["keys"].clone()
    for j, channel in enumerate(fixed["chosen"].tolist()):
        for c in range(len(texts)):
            texts[c, channel] += residual[c, j]
        for i, label in enumerate(labels):
            keys[i, channel] += residual[label, j]
    out = np.array([[20.0 * float(q @ t) for t in texts] for q in x])
    for key, label, weight in zip(keys, labels, params["weight"].tolist(), strict=True):
        for i, q in enumerate(x):
            out[i, label] += 1.5 * weight * math.exp(-2.0 * (1 - float(q @ key)))
    return out


def test_logits_and_loss_equal_naive_loops(toy: Any, whole_batch: Any) -> None:
    task, x = toy()
    params, fixed = ape_t.prepare(task, CONFIG, HYPER)
    params = moved(params)
    terms = ape_t.terms(params, fixed, Rows.of(x), CONFIG, HYPER)
    got = ape_t.combine(terms, fixed, CONFIG, HYPER)
    np.testing.assert_allclose(got.numpy(), naive(x, params, fixed), atol=1e-9)
    batch = whole_batch(task)
    value, state = ape_t.METHOD.stages(CONFIG)[0].loss(params, fixed, {}, batch, CONFIG, HYPER)
    rows = naive(batch.x, params, fixed)
    losses = [
        math.log(sum(map(math.exp, row))) - row[label]
        for row, label, weight in zip(rows, batch.y.tolist(), batch.weights.tolist(), strict=True)
        if weight
    ]
    assert float(value) == pytest.approx(sum(losses) / len(losses), abs=1e-9)
    assert state == {}


def test_the_start_is_tip_adapter(toy: Any) -> None:
    task, x = toy()
    params, fixed = ape_t.prepare(task, CONFIG, HYPER)
    terms = ape_t.terms(params, fixed, Rows.of(x), CONFIG, HYPER)
    votes = torch.exp(-2.0 * (1 - x @ task.support.x.T))
    one_hot = torch.nn.functional.one_hot(task.support.labels, 4).double()
    expected = 20.0 * x @ task.text.anchors().double().T + 1.5 * votes @ one_hot
    assert torch.allclose(ape_t.combine(terms, fixed, CONFIG, HYPER), expected, atol=1e-10)


def test_channels_without_a_residual_stay(toy: Any) -> None:
    task, _ = toy()
    params, fixed = ape_t.prepare(task, CONFIG, HYPER)
    params["residual"] = params["residual"] + 1.0
    others = [q for q in range(6) if q not in fixed["chosen"].tolist()]
    x = torch.zeros(1, 6).double()
    x[0, others] = 1.0
    for name in ("text", "distance"):
        before = ape_t.terms(
            ape_t.prepare(task, CONFIG, HYPER)[0], fixed, Rows.of(x), CONFIG, HYPER
        )[name]
        after = ape_t.terms(params, fixed, Rows.of(x), CONFIG, HYPER)[name]
        assert torch.equal(before, after)


def test_released_recipe() -> None:
    (stage,) = ape_t.METHOD.stages(ape_t.Config())
    sizes = Sizes(support=1600, pool=0, classes=100, shots=16, batch=256, per_epoch=7)
    assert stage.steps(sizes, ape_t.Config()) == 30 * 7
    assert stage.keep == "best-val"
    assert stage.trains is None
    assert (ape_t.Hyper().lr, ape_t.Hyper().omega) == (1e-3, 0.2)
    update: Any = stage.update
    assert (update.rule.eps, update.weight_decay) == (1e-3, 0.1)
