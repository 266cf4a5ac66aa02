import math
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import MissingComponentError
from heads.contract.rows import Rows, TaskView
from heads.methods import regularized_linear as rl
from heads.methods.regularized_linear import Config, Hyper
from heads.selection.settings import configure
from heads.training.trainer import train


def naive(w: Tensor, x: Tensor, anchors: Tensor) -> Tensor:
    """Equations (1) and (2), one scalar at a time; the toy's scale is 20."""
    rows = []
    for q in x:
        u = [sum(float(q[i] * w[i, j]) for i in range(len(q))) for j in range(w.shape[1])]
        length = math.sqrt(sum(v * v for v in u))
        cosines = [sum(v * float(a) for v, a in zip(u, t, strict=True)) / length for t in anchors]
        rows.append([20.0 * cosine for cosine in cosines])
    return torch.tensor(rows, dtype=torch.float64)


def map_near_identity(seed: int) -> Tensor:
    noise = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.eye(6).double() + 0.2 * noise


def start(task: TaskView) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return rl.prepare(task, Config(), Hyper())


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy()
    _, fixed = start(task)
    w = map_near_identity(1)
    terms = rl.terms({"map": w}, fixed, Rows.of(x), Config(), Hyper())
    got = rl.METHOD.combine(terms, fixed, Config(), Hyper())
    assert torch.allclose(got, naive(w, x, fixed["anchors"]), rtol=0, atol=1e-10)


def test_starts_at_zero_shot(toy: Any) -> None:
    task, x = toy()
    params, fixed = start(task)
    got = rl.terms(params, fixed, Rows.of(x), Config(), Hyper())["logits"]
    assert torch.allclose(got, 20.0 * x @ task.text.anchors().double().T, atol=1e-10)


def test_loss_equals_naive_loops(toy: Any, whole_batch: Any) -> None:
    task, _ = toy()
    _, fixed = start(task)
    batch = whole_batch(task, padding=False)
    w = map_near_identity(2)
    rows = naive(w, batch.x, fixed["anchors"])
    fit = 0.0
    for row, label in zip(rows.tolist(), batch.y.tolist(), strict=True):
        fit += math.log(sum(math.exp(v) for v in row)) - row[label]
    moved = sum((float(w[i, j]) - (i == j)) ** 2 for i in range(6) for j in range(6))
    hyper = Hyper(lam=0.7)
    got, _ = rl.METHOD.stages(Config())[0].loss({"map": w}, fixed, {}, batch, Config(), hyper)
    assert float(got) == pytest.approx(fit / len(rows) + 0.7 * moved, rel=1e-10)


def test_training_equals_the_released_loop(toy: Any) -> None:
    """Adam with eps 1e-4 and a cosine over the steps, whole batches, in plain torch."""
    task, _ = toy()
    config, hyper = Config(steps=12), Hyper(lr=0.01, lam=0.25)
    (run,) = train(rl.METHOD, config, [task], [hyper])
    _, fixed = start(task)
    w = torch.eye(6).double().requires_grad_()
    adam = torch.optim.Adam([w], lr=0.01, eps=1e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 12)
    for _ in range(12):
        u = torch.nn.functional.normalize(task.support.x @ w, dim=-1)
        fit = torch.nn.functional.cross_entropy(20.0 * u @ fixed["anchors"].T, task.support.labels)
        loss = fit + 0.25 * torch.nn.functional.mse_loss(w, torch.eye(6).double(), reduction="sum")
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        cosine.step()
    assert float((w.detach() - torch.eye(6)).abs().max()) > 0.01
    assert torch.allclose(run.head.params["map"], w.detach(), atol=1e-9)


def test_a_strong_pull_stays_at_the_identity(toy: Any) -> None:
    task, _ = toy()
    moved = []
    for lam in (0.0, 1.0, 1e3):
        (run,) = train(rl.METHOD, Config(steps=50), [task], [Hyper(lr=1e-3, lam=lam)])
        moved.append(float((run.head.params["map"] - torch.eye(6)).norm()))
    assert moved[0] > moved[1] > moved[2]


def test_lam_is_one_over_the_shots() -> None:
    assert configure(rl.METHOD, shots=4).hyper.lam == 0.25
    assert configure(rl.METHOD, shots=1).hyper.lam == 1.0
    assert configure(rl.METHOD, {"lam": 0.1}, shots=4).hyper.lam == 0.1


def test_texts_are_needed(toy: Any) -> None:
    task, _ = toy(text=False)
    with pytest.raises(MissingComponentError, match="regularized-linear"):
        start(task)
