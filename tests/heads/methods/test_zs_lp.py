import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from heads import cosine_probe
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows
from heads.contract.stages import Loss, Sizes
from heads.methods import zs_lp
from heads.training.samplers import Drawer
from heads.training.trainer import train

CONFIG, HYPER = cosine_probe.Config(), cosine_probe.Hyper()


def loss_of(method: AnyMethod) -> Loss:
    (stage,) = method.stages(method.config())
    return stage.loss


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy(bias=-3.0)
    _, fixed = zs_lp.prepare(task, CONFIG, HYPER)
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(task.c, x.shape[1], generator=rng, dtype=torch.float64)
    terms = cosine_probe.terms({"weight": weight}, fixed, Rows.of(x), CONFIG, HYPER)
    got = zs_lp.METHOD.combine(terms, fixed, CONFIG, HYPER)
    for i, q in enumerate(x):
        for c, w in enumerate(weight):
            dot = sum(float(a * b) for a, b in zip(q, w, strict=True))
            length = math.sqrt(sum(float(v * v) for v in w))
            assert float(got[i, c]) == pytest.approx(20 * dot / length - 3, abs=1e-8)


def test_starts_at_the_raw_texts(toy: Any) -> None:
    task, _ = toy()
    params, _ = zs_lp.prepare(task, CONFIG, HYPER)
    rows = task.text.template_rows.double()
    assert torch.allclose(params["weight"], (rows[:, 0] + rows[:, 1]) / 2)


@pytest.mark.parametrize("views", [0, 3])
def test_training_equals_torchs_sgd(toy: Any, views: int) -> None:
    """Batches as drawn; 10 images in fours make two full batches an epoch, of images or views."""
    task, _ = toy(views=views)
    config = cosine_probe.Config(epochs=12, batch=4)
    (stage,) = zs_lp.METHOD.stages(config)
    (run,) = train(zs_lp.METHOD, config, [task], [HYPER])
    weight = task.text.raw_anchors().double().requires_grad_()
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    drawer = Drawer(stage.batches, task.support, task.seed, 0)
    for epoch in range(12):
        pace = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / 12))
        sgd.param_groups[0]["lr"] = 0.1 * pace if epoch else 1e-5
        draw = drawer.draw(epoch)
        assert draw.index.shape == (2, 4)
        for rows, view in zip(draw.index, draw.view, strict=True):
            x = task.support.get("views")[rows, view] if views else task.support.x[rows]
            sgd.zero_grad()
            logits = 20 * x @ F.normalize(weight, dim=-1).T
            F.cross_entropy(logits, task.support.labels[rows]).backward()  # type: ignore[no-untyped-call]
            sgd.step()
    torch.testing.assert_close(run.head.params["weight"], weight.detach(), rtol=1e-8, atol=1e-8)


def test_loss_is_the_mean_over_rows_with_weight(toy: Any, whole_batch: Any) -> None:
    task, _ = toy(bias=-3.0)
    params, fixed = zs_lp.prepare(task, CONFIG, HYPER)
    batch = whole_batch(task)
    got, state = loss_of(zs_lp.METHOD)(params, fixed, {}, batch, CONFIG, HYPER)
    logits = cosine_probe.terms(params, fixed, Rows.of(batch.x), CONFIG, HYPER)["logits"]
    assert float(got) == pytest.approx(float(F.cross_entropy(logits[:-1], batch.y[:-1])))
    assert state == {}


def test_released_recipe() -> None:
    (stage,) = zs_lp.METHOD.stages(CONFIG)
    sizes = Sizes(support=800, pool=0, classes=50, shots=16, batch=256, per_epoch=3)
    assert stage.steps(sizes, CONFIG) == 900
    assert (stage.keep, stage.batches.kind, stage.batches.size) == ("last", "view_pool", 256)
    assert stage.batches.drop_last
    assert HYPER.lr == 0.1
    assert len(zs_lp.METHOD.train_grid) == len(zs_lp.METHOD.post_grid) == 1


@pytest.mark.parametrize(
    ("length", "released", "within"),
    [(10.0, 97.22, 0.8), (1.0, 94.17, 0.8)],
)
@pytest.mark.long
def test_accuracy_of_the_released_code(
    length: float, released: float, within: float, features: Callable[..., Any]
) -> None:
    # jusiro/CLAP@2b18ea4 on these rows: with unit texts the classifier is torn from its start
    task, x, y = features("caltech50", "train4")
    (run,) = train(zs_lp.METHOD, CONFIG, [task], [cosine_probe.Hyper(text_length=length)])
    query = Rows(x=x, norms=torch.ones(len(x)), labels=y)
    assert 100 * run.head.accuracy(query) == pytest.approx(released, abs=within)
