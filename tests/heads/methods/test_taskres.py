import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import Rows
from heads.contract.stages import Sizes
from heads.methods import taskres
from heads.training.trainer import train

CONFIG, HYPER = taskres.Config(), taskres.Hyper()


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy(bias=-3.0)
    params, fixed = taskres.prepare(task, CONFIG, HYPER)
    rng = torch.Generator().manual_seed(1)
    residual = torch.randn(params["residual"].shape, generator=rng, dtype=torch.float64)
    terms = taskres.terms({"residual": residual}, fixed, Rows.of(x), CONFIG, HYPER)
    got = taskres.METHOD.combine(terms, fixed, CONFIG, HYPER)
    rows = task.text.template_rows.double()
    for c in range(task.c):
        t = [sum(float(v) for v in rows[c, :, j]) / 2 for j in range(x.shape[1])]
        t = [t[j] + 0.5 * float(residual[c, j]) for j in range(x.shape[1])]
        length = math.sqrt(sum(v * v for v in t))
        for i, q in enumerate(x):
            value = 20 * sum(float(q[j]) * t[j] for j in range(len(t))) / length - 3
            assert float(got[i, c]) == pytest.approx(value, abs=1e-5)


def test_without_residual_it_is_zero_shot_with_raw_means(toy: Any) -> None:
    task, x = toy()
    params, fixed = taskres.prepare(task, CONFIG, HYPER)
    got = taskres.terms(params, fixed, Rows.of(x), CONFIG, HYPER)["logits"]
    raw = F.normalize(task.text.template_rows.mean(1), dim=-1).double()
    assert torch.allclose(got, 20 * x @ raw.T, atol=1e-5)


def twin(task: Any, epochs: int, *, decay: float = 5e-4) -> Tensor:
    """The recipe with torch's own Adam on the whole support."""
    x, y, base = task.support.x, task.support.labels, task.text.raw_anchors().double()
    residual = torch.zeros_like(base).requires_grad_()
    adam = torch.optim.Adam([residual], lr=2e-3, weight_decay=decay)
    for epoch in range(epochs):
        pace = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))
        adam.param_groups[0]["lr"] = 2e-3 * pace if epoch else 1e-5
        adam.zero_grad()
        logits = 20 * x @ F.normalize(base + 0.5 * residual, dim=-1).T
        F.cross_entropy(logits, y).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return residual.detach()


def test_training_equals_torchs_adam(toy: Any) -> None:
    task, _ = toy(counts=(2, 3, 1))
    (run,) = train(taskres.METHOD, CONFIG, [task], [HYPER])
    torch.testing.assert_close(run.head.params["residual"], twin(task, 100), rtol=1e-8, atol=1e-10)
    assert not torch.allclose(twin(task, 100), twin(task, 100, decay=0.0), rtol=1e-4)


def test_unit_texts_are_made_longer_and_that_is_told(toy: Any) -> None:
    task, _ = toy()
    unit = replace(task.text, template_rows=F.normalize(task.text.template_rows, dim=-1))
    lost = replace(task, text=replace(unit, norms="unit"))
    _, fixed = taskres.prepare(lost, CONFIG, HYPER)
    assert torch.allclose(fixed["base"], 10 * unit.raw_anchors().double())
    config = taskres.Config(epochs=2)
    for view, told in ((lost, True), (task, False)):
        (run,) = train(taskres.METHOD, config, [view], [HYPER])
        notes = taskres.METHOD.notes([run.watch])
        assert notes == (
            ["The class texts came as unit vectors; they were taken 10 times as long."]
            if told
            else []
        )


def test_longer_texts_turn_more_slowly(toy: Any) -> None:
    task, x = toy()
    task = replace(task, text=replace(task.text, norms="unit"))

    def moved(length: float) -> float:
        hyper = taskres.Hyper(text_length=length)
        (run,) = train(taskres.METHOD, taskres.Config(epochs=20), [task], [hyper])
        start, fixed = taskres.prepare(task, CONFIG, hyper)
        before = taskres.terms(start, fixed, Rows.of(x), CONFIG, hyper)["logits"]
        after = taskres.terms(run.head.params, fixed, Rows.of(x), CONFIG, hyper)["logits"]
        return float((after - before).abs().max())

    assert moved(1.0) > 3 * moved(10.0)


def test_released_recipe() -> None:
    (stage,) = taskres.METHOD.stages(CONFIG)
    for shots, epochs in [(1, 100), (4, 100), (8, 200), (16, 200)]:
        sizes = Sizes(support=100 * shots, pool=0, classes=100, shots=shots, batch=100, per_epoch=3)
        assert stage.steps(sizes, CONFIG) == 3 * epochs
    assert (stage.keep, stage.batches.size, stage.batches.drop_last) == ("last", 256, True)
    assert (HYPER.lr, HYPER.alpha) == (2e-3, 0.5)


@pytest.mark.parametrize(
    ("name", "support", "values", "released", "within"),
    [
        ("caltech50", "train4", {}, 97.22, 0.8),
        ("imagenet256", "train", {"lr": 2e-4}, 74.22, 1.0),
    ],
)
@pytest.mark.long
def test_accuracy_of_the_released_code(
    name: str,
    support: str,
    values: dict[str, float],
    released: float,
    within: float,
    features: Callable[..., Any],
) -> None:
    # geekyutao/TaskRes@293cc9e on these rows, texts times 10
    task, x, y = features(name, support)
    (run,) = train(taskres.METHOD, CONFIG, [task], [taskres.Hyper(**values)])
    query = Rows(x=x, norms=torch.ones(len(x)), labels=y)
    assert 100 * run.head.accuracy(query) == pytest.approx(released, abs=within)
