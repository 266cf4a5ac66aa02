import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heads.contract.rows import Rows, TaskView
from heads.contract.stages import Sizes
from heads.methods import lp_plus_plus
from heads.training.trainer import train

HYPER = lp_plus_plus.Hyper()


def twin(task: TaskView, bias: Tensor, *, steps: int, clean: bool) -> dict[str, Tensor]:
    """The released code's loop, written anew with torch.nn, torch.optim and autograd."""
    assert task.text is not None
    x, y = task.support.x, task.support.labels
    assert y is not None
    text, c = task.text.anchors().to(x).T, task.c
    classes = [x[y == k] for k in range(c)]
    linear = nn.Linear(x.shape[1], c).to(x)
    linear.weight.data = torch.stack([rows.sum(0) for rows in classes])
    linear.bias.data = bias.clone()
    own = [(rows @ text[:, k]).mean() for k, rows in enumerate(classes)]
    alpha = (250 * torch.stack(own).mean() * torch.ones(1, c).to(x)).requires_grad_()
    sgd = torch.optim.SGD(
        linear.parameters(),
        lr=float(4 * len(x) / torch.linalg.eigvalsh(x.T @ x).max()),
        momentum=0.9,
    )
    alpha_rate = len(x) / (4 * max(float((x @ text[:, k]).square().sum()) for k in range(c)))
    for step in range(steps):
        if clean:
            alpha.grad = None
        sgd.zero_grad()
        F.cross_entropy(linear(x) + alpha * (x @ text), y).backward()  # type: ignore[no-untyped-call]
        sgd.step()
        if (step + 1) % 10 == 0:
            assert alpha.grad is not None
            alpha.data -= alpha_rate * alpha.grad
    return {
        "weight": linear.weight.detach(),
        "bias": linear.bias.detach(),
        "alpha": alpha.detach()[0],
    }


@pytest.mark.parametrize("variant", ["code", "clean"])
def test_300_steps_equal_an_independent_loop(toy: Any, variant: Any) -> None:
    task, _ = toy(counts=(3, 1, 4, 2), d=12)
    config = lp_plus_plus.Config(variant=variant)
    start, _ = lp_plus_plus.prepare(task, config, HYPER)
    (run,) = train(lp_plus_plus.METHOD, config, [task], [HYPER])
    expected = twin(task, start["bias"], steps=300, clean=variant == "clean")
    assert set(run.head.params) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(run.head.params[name], value, rtol=1e-8, atol=1e-8)


def test_the_variants_differ_from_the_first_step_of_alpha_on(toy: Any) -> None:
    task, _ = toy()

    def alpha(variant: Any, steps: int) -> Tensor:
        config = lp_plus_plus.Config(variant=variant, steps=steps)
        (run,) = train(lp_plus_plus.METHOD, config, [task], [HYPER])
        return run.head.params["alpha"]

    assert torch.equal(alpha("code", 9), alpha("clean", 0))
    assert not torch.allclose(alpha("code", 10), alpha("clean", 10))


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy()
    config = lp_plus_plus.Config()
    params, fixed = lp_plus_plus.prepare(task, config, HYPER)
    params = {n: p + 0.3 * torch.arange(p.numel()).reshape(p.shape) for n, p in params.items()}
    terms = lp_plus_plus.terms(params, fixed, Rows.of(x), config, HYPER)
    got = lp_plus_plus.METHOD.combine(terms, fixed, config, HYPER)
    anchors = task.text.anchors().double()
    for i, q in enumerate(x):
        for c in range(task.c):
            value = float(params["bias"][c])
            for j in range(len(q)):
                value += float(q[j] * params["weight"][c, j])
                value += float(params["alpha"][c] * q[j] * anchors[c, j])
            assert float(got[i, c]) == pytest.approx(value, abs=1e-6)


def test_start_and_rates(toy: Any) -> None:
    task, _ = toy(counts=(2, 3))
    params, fixed = lp_plus_plus.prepare(task, lp_plus_plus.Config(), HYPER)
    x, y, anchors = task.support.x, task.support.labels, task.text.anchors().double()
    own = [sum(float(q @ anchors[c]) for q in x[y == c]) / (2 + c) for c in range(2)]
    assert params["alpha"].tolist() == pytest.approx([250 * sum(own) / 2] * 2)
    assert torch.allclose(params["weight"][1], x[y == 1].sum(0))
    assert float(params["bias"].abs().max()) <= 1 / math.sqrt(x.shape[1])
    longest = max(float(torch.linalg.matrix_norm(x, 2)) ** 2, 0.0)
    assert float(fixed["rate"]) == pytest.approx(4 * 5 / longest)


def test_a_class_without_shots_starts_at_nothing(toy: Any) -> None:
    task, x = toy(counts=(2, 0, 3))
    params, fixed = lp_plus_plus.prepare(task, lp_plus_plus.Config(), HYPER)
    assert not bool(params["weight"][1].any())
    logits = lp_plus_plus.terms(params, fixed, Rows.of(x), lp_plus_plus.Config(), HYPER)["logits"]
    assert bool(torch.isfinite(logits).all())


def test_loss_is_the_mean_over_rows_with_weight(toy: Any, whole_batch: Any) -> None:
    task, _ = toy()
    config, batch = lp_plus_plus.Config(), whole_batch(task)
    params, fixed = lp_plus_plus.prepare(task, config, HYPER)
    got, _ = lp_plus_plus.METHOD.stages(config)[0].loss(params, fixed, {}, batch, config, HYPER)
    logits = lp_plus_plus.terms(params, fixed, Rows.of(batch.x), config, HYPER)["logits"]
    assert float(got) == pytest.approx(float(F.cross_entropy(logits[:-1], batch.y[:-1])))


def test_released_recipe() -> None:
    (stage,) = lp_plus_plus.METHOD.stages(lp_plus_plus.Config())
    sizes = Sizes(support=160, pool=0, classes=10, shots=16, batch=160, per_epoch=1)
    assert stage.steps(sizes, lp_plus_plus.Config()) == 300
    assert (stage.keep, stage.look, stage.patience) == ("best-val", 1, 0)
    assert (stage.batches.kind, stage.batches.augment) == ("full", False)
    assert lp_plus_plus.Config().every == 10


@pytest.mark.parametrize(("name", "support", "released"), [("caltech50", "train4", 97.16)])
def test_accuracy_of_the_last_step(
    name: str, support: str, released: float, features: Callable[..., Any]
) -> None:
    # released_code: best step on validation; the last one is as good on these rows
    task, x, y = features(name, support)
    (run,) = train(lp_plus_plus.METHOD, lp_plus_plus.Config(), [task], [HYPER])
    query = Rows(x=x, norms=torch.ones(len(x)), labels=y)
    assert 100 * run.head.accuracy(query) == pytest.approx(released, abs=0.8)
