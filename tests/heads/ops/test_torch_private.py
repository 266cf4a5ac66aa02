"""Without torch's private functions everything is computed the same, only slower."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from heads import registry
from heads.contract.rows import Tensors
from heads.contract.stages import Update
from heads.ops import algebra, torch_private
from heads.ops.sinkhorn import match
from heads.training.optim import adam, adamw, sgd
from heads.training.trainer import train
from tests.heads.toy_tasks import make_task, rich_world, settings


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that takes all private functions away."""

    def take_away() -> None:
        for name, nothing in (("_batched", None), ("_stack", None), ("_kernels", {})):
            monkeypatch.setattr(torch_private, name, nothing)

    return take_away


def moved(update: Update) -> Tensors:
    """Take some steps from a fixed start along fixed gradients."""
    rng = torch.Generator().manual_seed(0)
    params = {"a": torch.randn(4, 3, generator=rng, dtype=torch.float64)}
    state = update.init(params)
    for step in range(9):
        params, state = update.step(
            params,
            {"a": torch.sin(params["a"] * (step + 1))},
            state,
            step=step,
            steps=9,
            config=None,
            hyper=SimpleNamespace(lr=0.03),
            fixed={},
        )
    return params | state


@pytest.mark.parametrize(
    ("kernel", "update"),
    [
        ("adamw", adamw(weight_decay=0.1)),
        ("adam", adam(weight_decay=0.1)),
        ("sgd", sgd(momentum=0.9, weight_decay=0.1)),
        ("sgd", sgd(momentum=0.9, nesterov=True)),
    ],
)
def test_optimisers_move_alike(
    kernel: str, update: Update, without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def counted(*given: Any, **named: Any) -> None:
        used.append(kernel)
        fast(*given, **named)

    fast = torch_private._kernels[kernel]
    monkeypatch.setitem(torch_private._kernels, kernel, counted)
    expected = moved(update)
    assert len(used) == 9
    without()
    got = moved(update)
    assert len(used) == 9
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-12)


def test_sums_by_label_are_the_same(without: Any) -> None:
    rng = torch.Generator().manual_seed(1)
    values = torch.randn(3, 4, 6, generator=rng, dtype=torch.float64)
    labels = torch.randint(5, (3, 6), generator=rng)

    def both() -> tuple[Tensor, Tensor]:
        def summed(v: Tensor, y: Tensor) -> Tensor:
            return algebra.sum_by_label(v, y, classes=5)

        return summed(values[0], labels[0]), torch.func.vmap(summed)(values, labels)

    assert not torch_private.may_be_stacked(labels)
    expected = both()
    without()
    assert torch_private.may_be_stacked(labels)
    for got, tensor in zip(both(), expected, strict=True):
        torch.testing.assert_close(got, tensor, rtol=0, atol=1e-12)


def test_transport_without_a_look_at_its_values_is_the_same(without: Any) -> None:
    """Rounds go on to the last, but a problem that has ended is left alone."""
    rng = torch.Generator().manual_seed(2)
    similarity = torch.rand(6, 3, 4, 5, generator=rng, dtype=torch.float64)
    a = torch.full((6, 3, 1, 1), 1 / 6, dtype=torch.float64)
    b = torch.full((1, 1, 4, 5), 1 / 4, dtype=torch.float64)
    assert not torch_private.may_be_inside()
    expected = match(similarity, a, b, 0.1, max_iter=100, tol=1e-2)
    without()
    assert torch_private.may_be_inside()
    got = match(similarity, a, b, 0.1, max_iter=100, tol=1e-2)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["tip-adapter-f", "lazsl", "cross-modal-linear-probe", "zs-lp"])
def test_methods_answer_alike(name: str, without: Any) -> None:
    method = registry.get(name)
    task = make_task(rich_world(), method)
    made = settings(method)

    def answered() -> Tensor:
        (run,) = train(method, made.config, [task.view], [made.hyper])
        return run.head.logits(task.query)

    expected = answered()
    without()
    torch.testing.assert_close(answered(), expected, rtol=1e-4, atol=1e-4)
