from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heads.contract.rows import Rows
from heads.contract.stages import Sizes
from heads.methods import clip_adapter
from heads.training.trainer import train

CONFIG = clip_adapter.Config()
HYPER = clip_adapter.Hyper(ratio=0.3)


def test_logits_and_loss_equal_naive_loops(toy: Any, whole_batch: Any) -> None:
    task, x = toy(d=8)
    params, fixed = clip_adapter.prepare(task, CONFIG, HYPER)
    down, up = params["down"].numpy(), params["up"].numpy()
    anchors = task.text.anchors().double().numpy()

    def row(f: np.ndarray) -> list[float]:
        hidden = [max(0.0, float(sum(w * v for w, v in zip(ws, f, strict=True)))) for ws in down]
        out = [max(0.0, float(sum(w * h for w, h in zip(ws, hidden, strict=True)))) for ws in up]
        mixed = np.array([0.3 * a + 0.7 * v for a, v in zip(out, f, strict=True)])
        length = float(sum(v * v for v in mixed)) ** 0.5
        return [20.0 * float(sum(mixed * t)) / length for t in anchors]

    got = clip_adapter.terms(params, fixed, Rows.of(x), CONFIG, HYPER)["logits"]
    np.testing.assert_allclose(got.numpy(), [row(f) for f in x.numpy()], atol=1e-10)
    assert params["down"].shape == (2, 8)
    batch = whole_batch(task)
    value, _ = clip_adapter.METHOD.stages(CONFIG)[0].loss(params, fixed, {}, batch, CONFIG, HYPER)
    losses = [
        float(np.log(np.exp(row(f)).sum()) - row(f)[label])
        for f, label in zip(batch.x.numpy()[:-1], batch.y.tolist()[:-1], strict=True)
    ]
    assert float(value) == pytest.approx(sum(losses) / len(losses), abs=1e-9)


def test_ratio_zero_is_zero_shot(toy: Any) -> None:
    task, x = toy()
    hyper = clip_adapter.Hyper(ratio=0.0)
    params, fixed = clip_adapter.prepare(task, CONFIG, hyper)
    got = clip_adapter.terms(params, fixed, Rows.of(x), CONFIG, hyper)["logits"]
    assert torch.allclose(got, 20.0 * x @ task.text.anchors().double().T, atol=1e-12)


def test_lengths_cancel(toy: Any) -> None:
    """Raw features, which the released code feeds, give the same logits."""
    task, x = toy()
    params, fixed = clip_adapter.prepare(task, CONFIG, HYPER)
    unit = clip_adapter.terms(params, fixed, Rows.of(x), CONFIG, HYPER)["logits"]
    raw = clip_adapter.terms(params, fixed, Rows.of(9.5 * x), CONFIG, HYPER)["logits"]
    assert torch.allclose(unit, raw, atol=1e-11)


def test_start_is_as_wide_as_a_linear_layers(toy: Any) -> None:
    task, _ = toy(d=512)
    params, _ = clip_adapter.prepare(task, CONFIG, HYPER)
    torch.manual_seed(0)
    for name, layer in (("down", nn.Linear(512, 128)), ("up", nn.Linear(128, 512))):
        bound = float(layer.weight.detach().abs().max())
        assert float(params[name].abs().max()) == pytest.approx(bound, rel=1e-3)
        assert float(params[name].std()) == pytest.approx(
            float(layer.weight.detach().std()), rel=0.02
        )
    again, _ = clip_adapter.prepare(task, CONFIG, HYPER)
    other, _ = clip_adapter.prepare(replace(task, seed=task.seed + 1), CONFIG, HYPER)
    assert torch.equal(params["up"], again["up"])
    assert not torch.equal(params["up"], other["up"])


def test_training_equals_torchs_own_loop(toy: Any) -> None:
    """An independent twin: modules, torch.optim.SGD and its schedule, 4 epochs of one batch."""
    task, _ = toy(counts=(2, 2, 2), d=8)
    config = clip_adapter.Config(epochs=4)
    hyper = clip_adapter.Hyper(lr=0.5)
    start, fixed = clip_adapter.prepare(task, config, hyper)
    (run,) = train(clip_adapter.METHOD, config, [task], [hyper])
    down, up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
    adapter = nn.Sequential(down, nn.ReLU(), up, nn.ReLU()).double()
    with torch.no_grad():
        down.weight.copy_(start["down"])
        up.weight.copy_(start["up"])
    solver = torch.optim.SGD(adapter.parameters(), lr=0.5, momentum=0.9, weight_decay=5e-4)
    x, y = task.support.x, task.support.labels
    for epoch in range(4):  # cosine by epoch, the first at 1e-5
        rate = 1e-5 if epoch == 0 else 0.25 * (1 + np.cos(np.pi * (epoch - 1) / 4))
        solver.param_groups[0]["lr"] = rate
        mixed = 0.2 * adapter(x) + 0.8 * x
        solver.zero_grad()
        value = F.cross_entropy(20.0 * F.normalize(mixed, dim=-1) @ fixed["anchors"].T, y)
        value.backward()  # type: ignore[no-untyped-call]
        solver.step()
    for name, layer in (("down", down), ("up", up)):
        assert torch.allclose(run.head.params[name], layer.weight, atol=1e-10)
    assert not torch.allclose(run.head.params["up"], start["up"], atol=1e-3)


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (4, 100), (8, 200), (16, 200)])
def test_coops_epochs(shots: int, epochs: int) -> None:
    (stage,) = clip_adapter.METHOD.stages(CONFIG)
    sizes = Sizes(support=100 * shots, pool=0, classes=100, shots=shots, batch=32, per_epoch=7)
    assert stage.steps(sizes, CONFIG) == epochs * 7


@pytest.mark.parametrize(("per_epoch", "epochs"), [(15, 200), (16, 187), (98, 30), (5000, 1)])
def test_large_supports_take_fewer_epochs_unless_told(per_epoch: int, epochs: int) -> None:
    (stage,) = clip_adapter.METHOD.stages(CONFIG)
    sizes = Sizes(
        support=32 * per_epoch, pool=0, classes=9, shots=16, batch=32, per_epoch=per_epoch
    )
    assert stage.steps(sizes, CONFIG) == epochs * per_epoch
    assert stage.steps(sizes, clip_adapter.Config(epochs=200)) == 200 * per_epoch
