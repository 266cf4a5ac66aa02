import math
from typing import Any

import pytest
import torch

from heads.contract.rows import Rows
from heads.contract.stages import Sizes
from heads.methods import tip_adapter, tip_adapter_f

CONFIG = tip_adapter_f.Config()
HYPER = tip_adapter_f.Hyper()


def test_untrained_keys_give_tip_adapter(toy: Any) -> None:
    task, x = toy(views=3)
    params, fixed = tip_adapter_f.prepare(task, CONFIG, HYPER)
    terms = tip_adapter_f.terms(params, fixed, Rows.of(x), CONFIG, HYPER)
    got = tip_adapter_f.combine(terms, fixed, CONFIG, HYPER)
    twin = tip_adapter.Hyper(alpha=HYPER.alpha, beta=HYPER.beta)
    _, memory = tip_adapter.prepare(task, tip_adapter.Config(), twin)
    terms = tip_adapter.terms({}, memory, Rows.of(x), tip_adapter.Config(), twin)
    assert torch.equal(got, tip_adapter.combine(terms, memory, tip_adapter.Config(), twin))


def test_loss_equals_naive_loops(toy: Any, whole_batch: Any) -> None:
    task, _ = toy()
    hyper = tip_adapter_f.Hyper(train_alpha=1.5, alpha=9.0, beta=2.0)
    params, fixed = tip_adapter_f.prepare(task, CONFIG, hyper)
    params["keys"] = params["keys"] + 0.3  # keys that left the sphere
    batch = whole_batch(task)
    got, state = tip_adapter_f.loss(params, fixed, {}, batch, CONFIG, hyper)
    anchors, losses = task.text.anchors().double(), []
    for q, label, weight in zip(batch.x, batch.y.tolist(), batch.weights.tolist(), strict=True):
        row = [20.0 * float(q @ t) for t in anchors]
        for key, owner in zip(params["keys"], batch.y.tolist(), strict=True):
            row[owner] += 1.5 * math.exp(-2.0 * (1 - float(q @ key)))
        losses += [math.log(sum(map(math.exp, row))) - row[label]] if weight else []
    assert float(got) == pytest.approx(sum(losses) / len(losses), abs=1e-10)
    assert state == {}


def test_gradient_pulls_keys_of_the_class_towards_its_row(toy: Any, whole_batch: Any) -> None:
    task, _ = toy(counts=(1, 1))
    params, fixed = tip_adapter_f.prepare(task, CONFIG, HYPER)
    batch = whole_batch(task, padding=False)
    slope = torch.func.grad(lambda p: tip_adapter_f.loss(p, fixed, {}, batch, CONFIG, HYPER)[0])(
        params
    )["keys"]
    for i in range(2):
        assert float(-slope[i] @ batch.x[i]) > 0


def test_released_recipe() -> None:
    (stage,) = tip_adapter_f.METHOD.stages(CONFIG)
    sizes = Sizes(support=1600, pool=0, classes=100, shots=16, batch=256, per_epoch=7)
    assert stage.steps(sizes, CONFIG) == 20 * 7
    assert stage.keep == "last"
    assert stage.trains is None
    assert HYPER.lr == 1e-3
    assert tip_adapter_f.METHOD.post_grid == tip_adapter.METHOD.post_grid
    # init_alpha in the configurations of gaopengcuhk/Tip-Adapter@d0e2d6f
    assert tip_adapter_f.METHOD.train_grid.axes == {"train_alpha": [1.17, 2.0, 3.0, 5.0, 10.0]}
    assert (HYPER.train_alpha, HYPER.alpha, HYPER.beta) == (1.17, 1.17, 1.0)
