"""Optimisers of (parameters, gradients, state), equal to torch.optim's.

They act on every number by itself, so that runs are updated stacked as they are, in place.

A learning rate is a number, the name of a hyper-parameter (then it is traced and may lie on a
grid), or one of these for each parameter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from heads.contract import Real, Tensors, Update

Rate: TypeAlias = Real | str
"""A number, or the name of a field of Hyper."""

Schedule = Literal["cosine", "constant"]
FUSED = ("cpu", "cuda")
"""Devices for which torch has Adam and SGD in one pass."""


@runtime_checkable
class Pace(Protocol):
    """How a learning rate changes over a stage."""

    def rate(self, lr: Tensor | Real, step: int, steps: int, per_epoch: int) -> Tensor | Real:
        """Return the learning rate of step `step` (from 0) of `steps`."""
        ...


def adamw(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    eps: Real = 1e-8,
    weight_decay: Rate = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    schedule: Schedule = "cosine",
    warmup: Real = 0,
    warmup_from: Real = 0.01,
    pace: Pace | None = None,
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
        pace: In place of schedule and warm-up.
    """
    own = _Pace(schedule=schedule, warmup=warmup, warmup_from=warmup_from)
    return _Adam(
        lr=lr, eps=eps, weight_decay=weight_decay, betas=betas, pace=pace or own, apart=True
    )


def adam(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    eps: Real = 1e-8,
    weight_decay: Rate = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    schedule: Schedule = "cosine",
    pace: Pace | None = None,
) -> Update:
    """Build Adam: decay joins the gradient and so both moments, as torch.optim.Adam."""
    own = _Pace(schedule=schedule, warmup=0, warmup_from=0)
    return _Adam(
        lr=lr, eps=eps, weight_decay=weight_decay, betas=betas, pace=pace or own, apart=False
    )


def sgd(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    momentum: Real = 0.0,
    weight_decay: Rate = 0.0,
    nesterov: bool = False,
    schedule: Schedule = "constant",
    warmup: Real = 0,
    warmup_from: Real = 0.01,
    pace: Pace | None = None,
) -> Update:
    """Build gradient descent with momentum; decay joins the gradient, as torch.optim.SGD."""
    own = _Pace(schedule=schedule, warmup=warmup, warmup_from=warmup_from)
    return _SGD(
        lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, pace=pace or own
    )


def dassl(
    warmup: int = 1,
    *,
    low: Real = 1e-5,
    shape: Literal["constant", "linear"] = "constant",
    by: Literal["epoch", "step"] = "epoch",
) -> Pace:
    """Build the learning rate of Dassl, the training library of CoOp and its kin.

    The cosine starts after the warm-up but is as long as the whole stage, so that it ends just
    above 0.

    Args:
        warmup: Epochs (or steps) of warm-up.
        low: Learning rate itself, not a fraction: of all the warm-up (constant) or of its first
            epoch (linear; the others climb to the full one).
        shape: Of the warm-up.
        by: What the rate changes by.
    """
    return _Dassl(warmup=warmup, low=low, shape=shape, by=by)


@dataclass(frozen=True, kw_only=True)
class _Pace:
    """The learning rate's factor over the steps of a stage."""

    schedule: Schedule
    warmup: Real
    warmup_from: Real

    def rate(self, lr: Tensor | Real, step: int, steps: int, per_epoch: int) -> Tensor | Real:
        return lr * self._factor(step, steps)

    def _factor(self, step: int, steps: int) -> float:
        warm = math.ceil(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if step < warm:
            return self.warmup_from + (1 - self.warmup_from) * step / warm
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(frozen=True, kw_only=True)
class _Dassl:
    warmup: int
    low: Real
    shape: Literal["constant", "linear"]
    by: Literal["epoch", "step"]

    def rate(self, lr: Tensor | Real, step: int, steps: int, per_epoch: int) -> Tensor | Real:
        each = per_epoch if self.by == "epoch" else 1
        at, total = step // each, math.ceil(steps / each)
        if at >= self.warmup:
            return lr * (0.5 * (1 + math.cos(math.pi * (at - self.warmup) / total)))
        return self.low if self.shape == "constant" or at == 0 else lr * (at / self.warmup)


@dataclass(frozen=True, kw_only=True)
class _Adam:
    lr: Rate | Mapping[str, Rate]
    eps: Real
    weight_decay: Rate
    betas: tuple[float, float]
    pace: Pace
    apart: bool
    """Decay the parameters themselves (AdamW); else decay joins the gradient."""
    elementwise: ClassVar[bool] = True

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
        per_epoch: int = 1,
    ) -> tuple[Tensors, Tensors]:
        decay = _value(self.weight_decay, hyper)
        for name, p in params.items():
            lr = self.pace.rate(_value(_of(self.lr, name), hyper), step, steps, per_epoch)
            moments = state[f"first.{name}"], state[f"second.{name}"]
            in_one_go = p.is_contiguous() and p.device.type in FUSED
            if isinstance(lr, Tensor) or isinstance(decay, Tensor) or not in_one_go:
                self._by_run(p, grads[name], *moments, _for(lr, p), _for(decay, p), step)
            else:
                self._fused(p, grads[name].contiguous(), *moments, lr, decay, step)
        return params, state

    def _fused(
        self, p: Tensor, grad: Tensor, m: Tensor, v: Tensor, lr: Real, decay: Real, step: int
    ) -> None:
        """Move everything by the same numbers: one pass over memory in place of eight."""
        kernel = torch._fused_adamw_ if self.apart else torch._fused_adam_
        kernel(
            [p],
            [grad],
            [m],
            [v],
            [],
            [torch.full((), step + 1.0, device=p.device)],
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def _by_run(
        self,
        p: Tensor,
        grad: Tensor,
        m: Tensor,
        v: Tensor,
        lr: Tensor | Real,
        decay: Tensor | Real,
        step: int,
    ) -> None:
        """Do the same for numbers that differ between runs."""
        b1, b2 = self.betas
        decays = isinstance(decay, Tensor) or decay != 0
        if decays and not self.apart:
            grad = grad + decay * p
        m.lerp_(grad, 1 - b1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        change = v.sqrt().div_(math.sqrt(1 - b2 ** (step + 1))).add_(self.eps)
        torch.div(m, change, out=change)
        if decays and self.apart:
            p.mul_(1 - lr * decay)
        p.sub_(change.mul_(lr / (1 - b1 ** (step + 1))))


@dataclass(frozen=True, kw_only=True)
class _SGD:
    lr: Rate | Mapping[str, Rate]
    momentum: Real
    weight_decay: Rate
    nesterov: bool
    pace: Pace
    elementwise: ClassVar[bool] = True

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
        per_epoch: int = 1,
    ) -> tuple[Tensors, Tensors]:
        decay = _value(self.weight_decay, hyper)
        for name, p in params.items():
            lr = self.pace.rate(_value(_of(self.lr, name), hyper), step, steps, per_epoch)
            in_one_go = p.is_contiguous() and p.device.type in FUSED and self.momentum
            if in_one_go and not isinstance(lr, Tensor) and not isinstance(decay, Tensor):
                self._fused(p, grads[name].contiguous(), state[f"momentum.{name}"], lr, decay)
                continue
            change = grads[name] + _for(decay, p) * p
            if self.momentum:
                kept = state[f"momentum.{name}"].mul_(self.momentum).add_(change)
                change = change + self.momentum * kept if self.nesterov else kept
            p.sub_(_for(lr, p) * change)
        return params, state

    def _fused(self, p: Tensor, grad: Tensor, kept: Tensor, lr: Real, decay: Real) -> None:
        """Move everything by the same numbers: one pass over memory in place of six."""
        torch._fused_sgd_(
            [p],
            [grad],
            [kept],
            weight_decay=decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=False,
        )


def _of(lr: Rate | Mapping[str, Rate], name: str) -> Rate:
    return lr[name] if isinstance(lr, Mapping) else lr


def _value(rate: Rate, hyper: Any) -> Tensor | Real:
    if isinstance(rate, str):
        value: Tensor | Real = getattr(hyper, rate)
        return value
    return rate


def _for(value: Tensor | Real, p: Tensor) -> Tensor | Real:
    """Give a tensor of one number a run as many axes as a stacked parameter has."""
    if isinstance(value, Tensor):
        return value.reshape(*value.shape, *[1] * (p.dim() - value.dim()))
    return value
