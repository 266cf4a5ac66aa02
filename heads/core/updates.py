"""Optimisers as pure functions of (parameters, gradients, state), equal to torch.optim's.

A learning rate is a number, the name of a hyper-parameter (then it is traced and may lie on a
grid), or one of these for each parameter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from heads.core.contract import Real, Tensors, Update

Rate: TypeAlias = Real | str
"""A number, or the name of a field of Hyper."""

Schedule = Literal["cosine", "constant"]


def adamw(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    eps: Real = 1e-8,
    weight_decay: Rate = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    schedule: Schedule = "cosine",
    warmup: Real = 0,
    warmup_from: Real = 0.01,
) -> Update:
    """Build AdamW: decay apart from the gradient, as torch.optim.AdamW.

    Args:
        lr: Learning rate, the name of one in Hyper, or either by parameter name.
        eps: Added to the root of the second moment.
        weight_decay: Share of the parameter taken off a step, times the learning rate.
        betas: Decay of the two moments.
        schedule: cosine falls to 0 over the stage, step by step.
        warmup: Steps of linear warm-up, or below 1 their share of all steps.
        warmup_from: Where the warm-up starts, as a fraction of the learning rate.
    """
    pace = _Pace(schedule=schedule, warmup=warmup, warmup_from=warmup_from)
    return _AdamW(lr=lr, eps=eps, weight_decay=weight_decay, betas=betas, pace=pace)


def sgd(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    momentum: Real = 0.0,
    weight_decay: Rate = 0.0,
    nesterov: bool = False,
    schedule: Schedule = "constant",
    warmup: Real = 0,
    warmup_from: Real = 0.01,
) -> Update:
    """Build gradient descent with momentum; decay joins the gradient, as torch.optim.SGD."""
    pace = _Pace(schedule=schedule, warmup=warmup, warmup_from=warmup_from)
    return _SGD(lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, pace=pace)


@dataclass(frozen=True, kw_only=True)
class _Pace:
    """The learning rate's factor over the steps of a stage."""

    schedule: Schedule
    warmup: Real
    warmup_from: Real

    def factor(self, step: int, steps: int) -> float:
        warm = math.ceil(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if step < warm:
            return self.warmup_from + (1 - self.warmup_from) * step / warm
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(frozen=True, kw_only=True)
class _AdamW:
    lr: Rate | Mapping[str, Rate]
    eps: Real
    weight_decay: Rate
    betas: tuple[float, float]
    pace: _Pace

    def init(self, params: Tensors) -> Tensors:
        first = {f"first.{n}": torch.zeros_like(p) for n, p in params.items()}
        return first | {f"second.{n}": torch.zeros_like(p) for n, p in params.items()}

    def step(
        self,
        params: Tensors,
        grads: Tensors,
        state: Tensors,
        *,
        step: int,
        steps: int,
        config: Any,
        hyper: Any,
        fixed: Tensors,
    ) -> tuple[Tensors, Tensors]:
        b1, b2 = self.betas
        factor = self.pace.factor(step, steps)
        correction = math.sqrt(1 - b2 ** (step + 1))
        decay = _value(self.weight_decay, hyper)
        decays = isinstance(decay, Tensor) or decay != 0
        moved = {}
        for name, p in params.items():
            lr = _value(_of(self.lr, name), hyper) * factor
            grad = grads[name]
            # lerp_ and addcmul_ would save a pass each, but vmap knows them only run by run
            m = state[f"first.{name}"].mul_(b1).add_(grad, alpha=1 - b1)
            v = torch.addcmul(state[f"second.{name}"].mul_(b2), grad, grad, value=1 - b2)
            state[f"second.{name}"] = v
            change = m / v.sqrt().div_(correction).add_(self.eps)
            rate = lr / (b1 ** (step + 1) - 1)  # below 0: downhill
            kept = p * (1 - lr * decay) if decays else p
            if isinstance(rate, Tensor):  # one pass, and a tensor may differ between runs
                moved[name] = torch.addcmul(kept, change, rate)
            else:
                moved[name] = torch.add(kept, change, alpha=rate)
        return moved, state


@dataclass(frozen=True, kw_only=True)
class _SGD:
    lr: Rate | Mapping[str, Rate]
    momentum: Real
    weight_decay: Rate
    nesterov: bool
    pace: _Pace

    def init(self, params: Tensors) -> Tensors:
        if not self.momentum:
            return {}
        return {f"momentum.{n}": torch.zeros_like(p) for n, p in params.items()}

    def step(
        self,
        params: Tensors,
        grads: Tensors,
        state: Tensors,
        *,
        step: int,
        steps: int,
        config: Any,
        hyper: Any,
        fixed: Tensors,
    ) -> tuple[Tensors, Tensors]:
        factor = self.pace.factor(step, steps)
        decay = _value(self.weight_decay, hyper)
        moved = {}
        for name, p in params.items():
            lr = _value(_of(self.lr, name), hyper) * factor
            change = grads[name] + decay * p
            if self.momentum:
                kept = state[f"momentum.{name}"].mul_(self.momentum).add_(change)
                change = change + self.momentum * kept if self.nesterov else kept
            moved[name] = p - lr * change
        return moved, state


def _of(lr: Rate | Mapping[str, Rate], name: str) -> Rate:
    return lr[name] if isinstance(lr, Mapping) else lr


def _value(rate: Rate, hyper: Any) -> Tensor | Real:
    if isinstance(rate, str):
        value: Tensor | Real = getattr(hyper, rate)
        return value
    return rate
