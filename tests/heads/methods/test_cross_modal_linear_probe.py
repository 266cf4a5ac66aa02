import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import Batch, Rows
from heads.contract.stages import Sizes
from heads.methods import cross_modal_linear_probe as cross
from heads.training.trainer import train

CONFIG, HYPER = cross.Config(), cross.Hyper()


def answer(task: Any, weight: Tensor, x: Tensor, hyper: cross.Hyper) -> Tensor:
    _, fixed = cross.prepare(task, CONFIG, hyper)
    terms = cross.terms({"weight": weight}, fixed, Rows.of(x), CONFIG, hyper)
    return cross.combine(terms, fixed, CONFIG, hyper)


def moved(task: Any) -> Tensor:
    params, _ = cross.prepare(task, CONFIG, HYPER)
    rng = torch.Generator().manual_seed(1)
    start = params["weight"]
    return start + 0.2 * torch.randn(start.shape, generator=rng, dtype=start.dtype)


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy()  # its own logit scale, 20, is not read
    weight, hyper = moved(task), cross.Hyper(scale=50.0, wise_ft=0.3)
    got = answer(task, weight, x, hyper)
    anchors = task.text.anchors().double()
    for i, q in enumerate(x):
        for c in range(task.c):
            value = 0.0
            for j in range(len(q)):
                mixed = 0.7 * float(weight[c, j]) + 0.3 * float(anchors[c, j])
                value += 50.0 * float(q[j]) * mixed
            assert float(got[i, c]) == pytest.approx(value, abs=1e-5)


def test_limits_of_wise_ft(toy: Any) -> None:
    task, x = toy()
    weight = moved(task)
    zero_shot = 100 * x @ task.text.anchors().double().T
    assert torch.allclose(answer(task, weight, x, cross.Hyper(wise_ft=1.0)), zero_shot)
    assert torch.allclose(answer(task, weight, x, cross.Hyper()), 100 * x @ weight.T)
    params, _ = cross.prepare(task, CONFIG, HYPER)
    assert torch.allclose(answer(task, params["weight"], x, HYPER), zero_shot)


def test_loss_equals_naive_loops(toy: Any, whole_batch: Any) -> None:
    task, _ = toy()
    _, fixed = cross.prepare(task, CONFIG, HYPER)
    weight, drawn = moved(task), torch.tensor([7, 2, 5])
    batch: Batch = replace(whole_batch(task), beside={"texts": drawn})
    got, _ = cross.loss({"weight": weight}, fixed, {}, batch, CONFIG, HYPER)
    rows = F.normalize(task.text.template_rows.double(), dim=-1)
    shown = [(q, y) for q, y in zip(batch.x, batch.y.tolist(), strict=True)][:-1]
    shown += [(rows[int(m) // 2, int(m) % 2], int(m) // 2) for m in drawn]  # two templates a class
    losses = []
    for q, y in shown:
        logits = [100 * float(q @ w) for w in weight]
        top = max(logits)
        losses.append(top + math.log(sum(math.exp(v - top) for v in logits)) - logits[y])
    assert float(got) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_training_equals_torchs_adamw(toy: Any) -> None:
    """Batches that hold all images and all texts; the warm-up and some steps of the cosine."""
    task, _ = toy()
    config = cross.Config(batch=40, steps=80)
    (run,) = train(cross.METHOD, config, [task], [HYPER])
    x = torch.cat([task.support.x, F.normalize(task.text.template_rows, dim=-1).reshape(8, -1)])
    y = torch.cat([task.support.labels, torch.arange(4).repeat_interleave(2)])
    weight = task.text.anchors().double().requires_grad_()
    adamw = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.01)
    for step in range(80):
        pace = 0.5 * (1 + math.cos(math.pi * (step - 50) / 80))
        warm = 1e-3 * step / 50 if step else 1e-5
        adamw.param_groups[0]["lr"] = warm if step < 50 else 1e-3 * pace
        adamw.zero_grad()
        F.cross_entropy(100 * x @ weight.T, y).backward()  # type: ignore[no-untyped-call]
        adamw.step()
    torch.testing.assert_close(run.head.params["weight"], weight.detach(), rtol=1e-5, atol=1e-6)


def test_random_start_follows_the_names_of_the_classes(toy: Any) -> None:
    task, _ = toy()
    config = cross.Config(init="random")
    start = cross.prepare(task, config, HYPER)[0]["weight"]
    assert float(start.abs().max()) <= 1 / math.sqrt(6)
    assert float(start.abs().max()) > 0.5 / math.sqrt(6)
    turned = replace(task, classes=task.classes[::-1])
    assert torch.equal(cross.prepare(turned, config, HYPER)[0]["weight"], start.flip(0))
    other = replace(task, seed=task.seed + 1)
    assert not torch.equal(cross.prepare(other, config, HYPER)[0]["weight"], start)


def test_half_of_a_batch_is_texts() -> None:
    (stage,) = cross.METHOD.stages(cross.Config(batch=8))
    assert (stage.batches.size, stage.batches.beside) == (4, (("texts", 4),))
    assert (stage.keep, stage.look) == ("best-val", 100)
    sizes = Sizes(support=160, pool=0, classes=10, shots=16, batch=4, per_epoch=40)
    assert stage.steps(sizes, CONFIG) == 12_800
    assert CONFIG.batch == 32
