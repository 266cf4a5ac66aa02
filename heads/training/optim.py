"""Optimisers of (parameters, gradients, state), equal to torch.optim's.

They are elementwise: a number's update depends on its own gradient and moments alone, so all
stacked runs are updated together, in place.

A learning rate is a number, the name of a hyper-parameter (then it is traced and may lie on a
grid), or one of these for each parameter. The state has one entry a parameter: Adam keeps both
moments in one tensor [2 ...], SGD its momentum in the shape of the parameter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from heads.contract.rows import Tensors
from heads.contract.settings import Real
from heads.contract.stages import Update
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
    """Build AdamW: weight decay decoupled from the gradient, as torch.optim.AdamW.

    Args:
        lr: Learning rate, the name of one in Hyper, or either by parameter name.
        eps: Added to the root of the second moment.
        weight_decay: Share of the parameter taken off a step, times the learning rate.
        betas: Decay of the two moments.
        schedule: cosine falls to 0 over the stage, step by step.
        warmup: Steps of linear warm-up, or below 1 their share of all steps.
        warmup_from: Where the warm-up starts, as a fraction of the learning rate.
    """
    return _Elementwise(
        rule=_Adam(eps=eps, betas=betas, decoupled=True),
        lr=lr,
        weight_decay=weight_decay,
        schedule=_schedule(schedule, warmup, warmup_from),
    )


def adam(
    lr: Rate | Mapping[str, Rate] = "lr",
    *,
    eps: Real = 1e-8,
    weight_decay: Rate = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    schedule: Shape | Schedule = "cosine",
) -> Update:
    """Build Adam: weight decay is added to the gradient, as torch.optim.Adam.

    Args:
        lr: Learning rate, the name of one in Hyper, or either by parameter name.
        eps: Added to the root of the second moment.
        weight_decay: Weight of the parameter in the gradient.
        betas: Decay of the two moments.
        schedule: cosine falls to 0 over the stage, step by step.
    """
    return _Elementwise(
        rule=_Adam(eps=eps, betas=betas, decoupled=False),
        lr=lr,
        weight_decay=weight_decay,
        schedule=_schedule(schedule),
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
    """Build gradient descent with momentum, as torch.optim.SGD.

    Args:
        lr: Learning rate, the name of one in Hyper, or either by parameter name.
        momentum: Decay of the running sum of gradients; 0 keeps none.
        weight_decay: Weight of the parameter in the gradient.
        nesterov: Use Nesterov's momentum.
        schedule: cosine falls to 0 over the stage, step by step.
        warmup: Steps of linear warm-up, or below 1 their share of all steps.
        warmup_from: Where the warm-up starts, as a fraction of the learning rate.
    """
    return _Elementwise(
        rule=_SGD(momentum=momentum, nesterov=nesterov),
        lr=lr,
        weight_decay=weight_decay,
        schedule=_schedule(schedule, warmup, warmup_from),
    )


def dassl(
    warmup: int = 1,
    *,
    low: Real = 1e-5,
    shape: Literal["constant", "linear"] = "constant",
    by: Literal["epoch", "step"] = "epoch",
) -> Schedule:
    """Build the schedule of Dassl, the training library of CoOp and the methods built on it.

    The cosine starts after the warm-up but its period is the whole stage, so the rate ends just
    above 0.

    Args:
        warmup: Epochs (or steps) of warm-up.
        low: Absolute learning rate during a constant warm-up, or in the first epoch (or step) of
            a linear one, which then rises to the full rate.
        shape: Shape of the warm-up.
        by: Unit in which the rate changes.
    """
    return _Dassl(warmup=warmup, low=low, shape=shape, by=by)


def cosine_to(low: Real) -> Schedule:
    """Build a cosine that falls to an absolute learning rate, as torch's CosineAnnealingLR.

    Args:
        low: Learning rate that the step after the last one would have.
    """
    return _CosineTo(low=low)


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
class _CosineTo:
    low: Real

    def rate(self, lr: Tensor | Real, step: int, steps: int, per_epoch: int) -> Tensor | Real:
        return self.low + (lr - self.low) * (0.5 * (1 + math.cos(math.pi * step / steps)))


@runtime_checkable
class _Rule(Protocol):
    """The update of one parameter, given its learning rate and weight decay."""

    def init(self, p: Tensor) -> Tensor | None:
        """Return the state of a parameter; None for a rule without state."""
        ...

    def move(
        self,
        p: Tensor,
        grad: Tensor,
        state: Tensor | None,
        *,
        lr: Tensor | Real,
        decay: Tensor | Real,
        step: int,
    ) -> None:
        """Update a parameter and its state in place in step `step` (from 0)."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Elementwise:
    """An `Update` that applies a rule to every parameter with the rate of the step."""

    rule: _Rule
    lr: Rate | Mapping[str, Rate]
    weight_decay: Rate
    schedule: Schedule
    elementwise: ClassVar[bool] = True

    def init(self, params: Tensors) -> Tensors:
        states = {name: self.rule.init(p) for name, p in params.items()}
        return {name: state for name, state in states.items() if state is not None}

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
            base = self.lr[name] if isinstance(self.lr, Mapping) else self.lr
            lr = self.schedule.rate(_value(base, hyper), step, steps, per_epoch)
            self.rule.move(p, grads[name], state.get(name), lr=lr, decay=decay, step=step)
        return params, state


@dataclass(frozen=True, kw_only=True)
class _Adam:
    eps: Real
    betas: tuple[float, float]
    decoupled: bool
    """Decoupled weight decay (AdamW); else decay is added to the gradient."""

    def init(self, p: Tensor) -> Tensor:
        """Return both moments, [2 ...]."""
        return p.new_zeros(2, *p.shape)

    def move(
        self,
        p: Tensor,
        grad: Tensor,
        state: Tensor | None,
        *,
        lr: Tensor | Real,
        decay: Tensor | Real,
        step: int,
    ) -> None:
        assert state is not None
        first, second = state[0], state[1]
        kernel = fused("adamw" if self.decoupled else "adam", p)
        if kernel is None or isinstance(lr, Tensor) or isinstance(decay, Tensor):
            self._by_run(p, grad, first, second, _for(lr, p), _for(decay, p), step)
            return
        # one rate for all runs: one pass over memory in place of eight
        kernel(
            [p],
            [grad.contiguous()],
            [first],
            [second],
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
        """Take the same step with rates that differ between runs."""
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
    momentum: Real
    nesterov: bool

    def init(self, p: Tensor) -> Tensor | None:
        return torch.zeros_like(p) if self.momentum else None

    def move(
        self,
        p: Tensor,
        grad: Tensor,
        state: Tensor | None,
        *,
        lr: Tensor | Real,
        decay: Tensor | Real,
        step: int,
    ) -> None:
        kernel = None if state is None else fused("sgd", p)
        if kernel and not isinstance(lr, Tensor) and not isinstance(decay, Tensor):
            # one rate for all runs: one pass over memory in place of six
            kernel(
                [p],
                [grad.contiguous()],
                [state],
                weight_decay=decay,
                momentum=self.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
                is_first_step=False,
            )
            return
        change = grad + _for(decay, p) * p
        if state is not None:
            velocity = state.mul_(self.momentum).add_(change)
            change = change + self.momentum * velocity if self.nesterov else velocity
        p.sub_(_for(lr, p) * change)


def _value(rate: Rate, hyper: Any) -> Tensor | Real:
    """Return a number, or the hyper-parameter of that name."""
    if isinstance(rate, str):
        value: Tensor | Real = getattr(hyper, rate)
        return value
    return rate


def _for(value: Tensor | Real, p: Tensor) -> Tensor | Real:
    """Reshape a tensor with one number a run so that it broadcasts to a stacked parameter."""
    if isinstance(value, Tensor):
        return value.reshape(*value.shape, *[1] * (p.dim() - value.dim()))
    return value
