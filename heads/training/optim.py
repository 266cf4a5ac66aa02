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
from heads.ops.torch_private import fused

Rate: TypeAlias = Real | str
"""A number, or the name of a field of Hyper."""

Shape = Literal["cosine", "constant"]


@runtime_checkable
class Schedule(Protocol):
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
    schedule: Shape | Schedule = "cosine",
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
    factor = _schedule(schedule, warmup, warmup_from)
    return _Adam(
        lr=lr, eps=eps, weight_decay=weight_decay, betas=betas, schedule=factor, decoupled=True
    )


def adam(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    eps: Real = 1e-8,
    weight_decay: Rate = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    schedule: Shape | Schedule = "cosine",
) -> Update:
    """Build Adam: decay joins the gradient and so both moments, as torch.optim.Adam."""
    factor = _schedule(schedule)
    return _Adam(
        lr=lr, eps=eps, weight_decay=weight_decay, betas=betas, schedule=factor, decoupled=False
    )


def sgd(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    momentum: Real = 0.0,
    weight_decay: Rate = 0.0,
    nesterov: bool = False,
    schedule: Shape | Schedule = "constant",
    warmup: Real = 0,
    warmup_from: Real = 0.01,
) -> Update:
    """Build gradient descent with momentum; decay joins the gradient, as torch.optim.SGD."""
    factor = _schedule(schedule, warmup, warmup_from)
    return _SGD(
        lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, schedule=factor
    )


def dassl(
    warmup: int = 1,
    *,
    low: Real = 1e-5,
    shape: Literal["constant", "linear"] = "constant",
    by: Literal["epoch", "step"] = "epoch",
) -> Schedule:
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


def _schedule(schedule: Shape | Schedule, warmup: Real = 0, warmup_from: Real = 0) -> Schedule:
    """Build a schedule from its shape and warm-up; one that is given stays as it is."""
    if isinstance(schedule, str):
        return _Warmup(shape=schedule, warmup=warmup, warmup_from=warmup_from)
    return schedule


@dataclass(frozen=True, kw_only=True)
class _Warmup:
    """The learning rate's factor over the steps of a stage."""

    shape: Shape
    warmup: Real
    warmup_from: Real

    def rate(self, lr: Tensor | Real, step: int, steps: int, per_epoch: int) -> Tensor | Real:
        return lr * self._factor(step, steps)

    def _factor(self, step: int, steps: int) -> float:
        warm = math.ceil(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if step < warm:
            return self.warmup_from + (1 - self.warmup_from) * step / warm
        if self.shape == "constant":
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
    schedule: Schedule
    decoupled: bool
    """Decoupled weight decay (AdamW); else decay is added to the gradient."""
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
            lr = self.schedule.rate(_value(_of(self.lr, name), hyper), step, steps, per_epoch)
            moments = state[f"first.{name}"], state[f"second.{name}"]
            kernel = fused("adamw" if self.decoupled else "adam", p)
            if kernel is None or isinstance(lr, Tensor) or isinstance(decay, Tensor):
                self._by_run(p, grads[name], *moments, _for(lr, p), _for(decay, p), step)
                continue
            # the same numbers everywhere: one pass over memory in place of eight
            kernel(
                [p],
                [grads[name].contiguous()],
                [moments[0]],
                [moments[1]],
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
        return params, state

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
        if decays and not self.decoupled:
            grad = grad + decay * p
        m.lerp_(grad, 1 - b1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        change = v.sqrt().div_(math.sqrt(1 - b2 ** (step + 1))).add_(self.eps)
        torch.div(m, change, out=change)
        if decays and self.decoupled:
            p.mul_(1 - lr * decay)
        p.sub_(change.mul_(lr / (1 - b1 ** (step + 1))))


@dataclass(frozen=True, kw_only=True)
class _SGD:
    lr: Rate | Mapping[str, Rate]
    momentum: Real
    weight_decay: Rate
    nesterov: bool
    schedule: Schedule
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
            lr = self.schedule.rate(_value(_of(self.lr, name), hyper), step, steps, per_epoch)
            kernel = fused("sgd", p) if self.momentum else None
            if kernel and not isinstance(lr, Tensor) and not isinstance(decay, Tensor):
                # the same numbers everywhere: one pass over memory in place of six
                kernel(
                    [p],
                    [grads[name].contiguous()],
                    [state[f"momentum.{name}"]],
                    weight_decay=decay,
                    momentum=self.momentum,
                    lr=lr,
                    dampening=0.0,
                    nesterov=self.nesterov,
                    maximize=False,
                    is_first_step=False,
                )
                continue
            change = grads[name] + _for(decay, p) * p
            if self.momentum:
                kept = state[f"momentum.{name}"].mul_(self.momentum).add_(change)
                change = change + self.momentum * kept if self.nesterov else kept
            p.sub_(_for(lr, p) * change)
        return params, state


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
