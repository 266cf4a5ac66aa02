import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from heads import cosine_probe
from heads.contract.method import AnyMethod
from heads.contract.rows import Kind, Rows
from heads.contract.stages import Loss
from heads.methods import clap, zs_lp
from heads.training.trainer import train

CONFIG, HYPER = cosine_probe.Config(), cosine_probe.Hyper()


@pytest.mark.parametrize("views", [0, 3])
def test_trust_equals_naive_loops(toy: Any, views: int) -> None:
    task, _ = toy(views=views)
    _, fixed = clap.prepare(task, CONFIG, HYPER)
    raw = task.text.raw_anchors().double()
    sums: list[list[float]] = [[] for _ in range(task.c)]
    for i, label in enumerate(task.support.labels.tolist()):
        rows = task.support.kinds[Kind("views", "rrc50")][i] if views else task.support.x[i][None]
        for q in rows:
            logits = [20 * float(q @ t) / float(t.norm()) for t in raw]
            sums[label].append(math.exp(logits[label]) / sum(map(math.exp, logits)))
    expected = [sum(s) / len(s) for s in sums]
    assert fixed["l2"].tolist() == pytest.approx(expected, abs=1e-6)


def loss_of(method: AnyMethod) -> Loss:
    (stage,) = method.stages(method.config())
    return stage.loss


def test_a_class_without_shots_is_trusted_as_the_others_are(toy: Any) -> None:
    task, _ = toy(counts=(2, 0, 3))
    _, fixed = clap.prepare(task, CONFIG, HYPER)
    pull = fixed["l2"].tolist()
    assert pull[1] == pytest.approx((pull[0] + pull[2]) / 2)


def test_loss_equals_naive_loops(toy: Any, whole_batch: Any) -> None:
    task, _ = toy()
    params, fixed = clap.prepare(task, CONFIG, HYPER)
    rng = torch.Generator().manual_seed(1)
    weight = params["weight"] + torch.randn(params["weight"].shape, generator=rng).double()
    batch = whole_batch(task)
    got, _ = loss_of(clap.METHOD)({"weight": weight}, fixed, {}, batch, CONFIG, HYPER)
    plain, _ = loss_of(zs_lp.METHOD)(
        {"weight": weight}, fixed, {}, batch, cosine_probe.Config(), cosine_probe.Hyper()
    )
    held = 0.0
    for c in range(task.c):
        gap = sum(float(v) ** 2 for v in weight[c] - task.text.raw_anchors()[c])
        held += float(fixed["l2"][c]) * gap / task.c
    assert float(got) == pytest.approx(float(plain) + held, rel=1e-6)


def test_without_trust_it_is_zs_lp(toy: Any, whole_batch: Any) -> None:
    task, x = toy(views=2)
    config, other = cosine_probe.Config(epochs=5), cosine_probe.Config(epochs=5)
    (held,) = train(clap.METHOD, config, [task], [HYPER])
    (free,) = train(zs_lp.METHOD, other, [task], [cosine_probe.Hyper()])
    start = held.head.fixed["base"]
    moved = [(run.head.params["weight"] - start).norm() for run in (held, free)]
    assert float(moved[0]) < float(moved[1])
    both = Rows.of(x)
    same = held.head.params
    one = cosine_probe.terms(same, held.head.fixed, both, config, HYPER)["logits"]
    assert torch.equal(
        one, cosine_probe.terms(same, free.head.fixed, both, other, cosine_probe.Hyper())["logits"]
    )
    batch, fixed = whole_batch(task), held.head.fixed | {"l2": torch.zeros(task.c).double()}
    value, _ = loss_of(clap.METHOD)(same, fixed, {}, batch, config, HYPER)
    plain, _ = loss_of(zs_lp.METHOD)(same, fixed, {}, batch, other, cosine_probe.Hyper())
    assert float(value) == float(plain)


def test_training_equals_torchs_sgd(toy: Any) -> None:
    task, _ = toy(counts=(2, 3, 1))
    config = cosine_probe.Config(epochs=40)
    (run,) = train(clap.METHOD, config, [task], [HYPER])
    x, y, base = task.support.x, task.support.labels, task.text.raw_anchors().double()
    chance = (20 * x @ F.normalize(base, dim=-1).T).softmax(-1)
    pull = torch.stack([chance[y == c, c].mean() for c in range(3)])
    weight = base.clone().requires_grad_()
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    for epoch in range(40):
        pace = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / 40))
        sgd.param_groups[0]["lr"] = 0.1 * pace if epoch else 1e-5
        sgd.zero_grad()
        fit = F.cross_entropy(20 * x @ F.normalize(weight, dim=-1).T, y)
        (fit + (pull * (weight - base).square().sum(-1)).mean()).backward()
        sgd.step()
    # the toy's anchors are float32 where the twin's are float64
    torch.testing.assert_close(run.head.params["weight"], weight.detach(), rtol=1e-6, atol=1e-6)


def test_recipe_is_that_of_zs_lp() -> None:
    (mine,), (theirs,) = clap.METHOD.stages(CONFIG), zs_lp.METHOD.stages(cosine_probe.Config())
    assert (mine.batches, mine.update, mine.keep) == (theirs.batches, theirs.update, theirs.keep)
    assert CONFIG.epochs == 300
    assert len(clap.METHOD.train_grid) == len(clap.METHOD.post_grid) == 1


@pytest.mark.parametrize(
    ("length", "released", "within"),
    [(10.0, 97.36, 0.8), (1.0, 97.22, 0.8)],
)
@pytest.mark.long
def test_accuracy_of_the_released_code(
    length: float, released: float, within: float, features: Callable[..., Any]
) -> None:
    # jusiro/CLAP@2b18ea4 on these rows
    task, x, y = features("caltech50", "train4")
    (run,) = train(clap.METHOD, CONFIG, [task], [cosine_probe.Hyper(text_length=length)])
    query = Rows(x=x, norms=torch.ones(len(x)), labels=y)
    assert 100 * run.head.accuracy(query) == pytest.approx(released, abs=within)
