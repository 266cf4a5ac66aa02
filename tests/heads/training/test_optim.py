"""Our optimisers against torch.optim, step by step, and alike under vmap."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from heads.contract.rows import Tensors
from heads.contract.stages import Update
from heads.training.optim import adam, adamw, cosine_to, dassl, sgd

STEPS = 20
LR = 0.03


def start() -> Tensors:
    rng = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(4, 3, generator=rng, dtype=torch.float64),
        "b": torch.randn(5, generator=rng, dtype=torch.float64),
    }


def gradients(params: Tensors, step: int) -> Tensors:
    return {n: torch.sin(p * (step + 1)) + p**3 for n, p in params.items()}


def ours(
    update: Update, lr: float | Tensor = LR, params: Tensors | None = None, per_epoch: int = 1
) -> Tensors:
    params = params or start()
    state = update.init(params)
    for step in range(STEPS):
        params, state = update.step(
            params,
            gradients(params, step),
            state,
            step=step,
            steps=STEPS,
            config=None,
            hyper=SimpleNamespace(lr=lr),
            fixed={},
            per_epoch=per_epoch,
        )
    return params


def torchs(
    optimiser: Callable[[list[Tensor]], torch.optim.Optimizer],
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None,
) -> Tensors:
    params = {n: p.requires_grad_() for n, p in start().items()}
    opt = optimiser(list(params.values()))
    scheduler = schedule(opt) if schedule else None
    for step in range(STEPS):
        for name, grad in gradients({n: p.detach() for n, p in params.items()}, step).items():
            params[name].grad = grad
        opt.step()
        if scheduler:
            scheduler.step()
    return {n: p.detach() for n, p in params.items()}


def warm_cosine(opt: torch.optim.Optimizer) -> LRScheduler:
    return SequentialLR(
        opt,
        [
            LinearLR(opt, start_factor=0.01, total_iters=5),
            CosineAnnealingLR(opt, T_max=STEPS - 5),
        ],
        milestones=[5],
    )


class LateCosine:
    """Dassl's scheduler: a warm-up, then torch's cosine over the whole length from its start on."""

    def __init__(
        self, opt: torch.optim.Optimizer, warmup: int, low: float, linear: bool, every: int = 1
    ) -> None:
        self.opt, self.warmup, self.linear, self.every = opt, warmup, linear, every
        self.cosine = CosineAnnealingLR(opt, T_max=STEPS // every)
        self.taken = 0
        self.set(low)
        self.low = low

    def set(self, lr: float) -> None:
        for group in self.opt.param_groups:
            group["lr"] = lr

    def step(self) -> None:
        self.taken += 1
        at, within = divmod(self.taken, self.every)
        if within:
            return
        if at < self.warmup:
            self.set(LR * at / self.warmup if self.linear else self.low)
        elif at == self.warmup:
            self.set(LR)
        else:
            self.cosine.step()


CASES: dict[str, tuple[Update, Any, Any]] = {
    "adamw, cosine": (
        adamw(eps=1e-4, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=LR, eps=1e-4, weight_decay=0.1),
        lambda o: CosineAnnealingLR(o, T_max=STEPS),
    ),
    "adamw, constant, own betas": (
        adamw(schedule="constant", betas=(0.8, 0.95), weight_decay=0.0),
        lambda p: torch.optim.AdamW(p, lr=LR, betas=(0.8, 0.95), weight_decay=0.0),
        None,
    ),
    "adamw, warm-up": (
        adamw(warmup=5),
        lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.01),
        warm_cosine,
    ),
    "adam, decay": (
        adam(weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=LR, weight_decay=0.1),
        lambda o: CosineAnnealingLR(o, T_max=STEPS),
    ),
    "adamw, Dassl's linear warm-up by steps": (
        adamw(schedule=dassl(5, low=1e-3, shape="linear", by="step")),
        lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.01),
        lambda o: LateCosine(o, 5, 1e-3, linear=True),
    ),
    "adamw, cosine to a rate": (
        adamw(weight_decay=0.1, schedule=cosine_to(1e-3)),
        lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.1),
        lambda o: CosineAnnealingLR(o, T_max=STEPS, eta_min=1e-3),
    ),
    "sgd": (sgd(), lambda p: torch.optim.SGD(p, lr=LR), None),
    "sgd, momentum, decay, cosine": (
        sgd(momentum=0.9, weight_decay=0.01, schedule="cosine"),
        lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=0.01),
        lambda o: CosineAnnealingLR(o, T_max=STEPS),
    ),
    "sgd, nesterov": (
        sgd(momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, nesterov=True),
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_torch(case: str) -> None:
    update, optimiser, schedule = CASES[case]
    theirs = torchs(optimiser, schedule)
    for name, p in ours(update).items():
        torch.testing.assert_close(p, theirs[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_dassls_epochs(warmup: int) -> None:
    theirs = torchs(
        lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9),
        lambda o: LateCosine(o, warmup, 1e-4 if warmup else LR, linear=False, every=4),  # type: ignore[arg-type,return-value]
    )
    got = ours(sgd(momentum=0.9, schedule=dassl(warmup, low=1e-4)), per_epoch=4)
    for name, p in got.items():
        torch.testing.assert_close(p, theirs[name], rtol=0, atol=1e-12)


def test_warmup_as_a_share_of_the_steps() -> None:
    torch.testing.assert_close(
        ours(adamw(warmup=0.25))["a"], ours(adamw(warmup=5))["a"], rtol=0, atol=0
    )


def test_a_rate_for_each_parameter() -> None:
    moved = ours(adamw({"a": 0.0, "b": "lr"}))
    assert torch.equal(moved["a"], start()["a"])
    assert torch.equal(moved["b"], ours(adamw())["b"])


@pytest.mark.parametrize(
    "update",
    [adamw(), adam(weight_decay=0.1, schedule=dassl()), sgd(momentum=0.9, weight_decay=0.1)],
)
def test_stacked_rates_equal_single_runs(update: Update) -> None:
    rates = torch.tensor([0.001, 0.01, 0.1], dtype=torch.float64)
    stacked = {n: p.expand(3, *p.shape).clone() for n, p in start().items()}
    moved = ours(update, rates, stacked)
    for i, lr in enumerate(rates.tolist()):
        torch.testing.assert_close(moved["a"][i], ours(update, lr)["a"], rtol=0, atol=1e-12)
