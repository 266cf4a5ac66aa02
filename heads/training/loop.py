"""The training loop of one stage: losses of all stacked runs, their gradients, one update."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from heads.contract.rows import Tensors
from heads.contract.stages import Stage
from heads.training.batches import StepTensors, as_batch
from heads.training.stack import Stack


@runtime_checkable
class Fit(Protocol):
    """The stacked runs that a loop trains."""

    config: Any
    stack: Stack
    like: Tensor
    hypers: list[list[Any]]
    hyper: Tensors
    params: Tensors
    fixed: Tensors

    def runs(self) -> Iterator[tuple[int, int]]:
        """Iterate over (task, grid point)."""
        ...

    def hyper_of(self, values: Mapping[str, Any]) -> Any:
        """Return a Hyper with these values."""
        ...

    def fixed_dims(self) -> Any:
        """Return vmap's in_dims of the fixed tensors over grid points: 0 or None by name."""
        ...


class Loop:
    """The training loop of one stage over stacked runs."""

    def __init__(self, fit: Fit, stage: Stage, steps: int, per_epoch: int) -> None:
        self.fit, self.stage, self.steps, self.per_epoch = fit, stage, steps, per_epoch
        stack, at = fit.stack, fit.fixed_dims()
        # copied, because the update may overwrite parameters
        self.trained = {
            n: p.clone(memory_format=torch.contiguous_format)
            for n, p in stage.trained(fit.params).items()
        }
        self.others = {n: p for n, p in fit.params.items() if n not in self.trained}
        self.elementwise = stage.update.elementwise
        init = stage.update.init
        self.opt = init(self.trained) if self.elementwise else stack.lift(init, (0,))(self.trained)
        self.state: Tensors = {}
        start = stage.start
        if start is not None:

            def begin(params: Tensors, fixed: Tensors, hyper: Tensors) -> Tensors:
                return start(params, fixed, fit.config, fit.hyper_of(hyper))

            self.state = stack.lift(begin, (0, at, 0))(fit.params, fit.fixed, fit.hyper)
        self._losses = stack.lift(self._loss, (0, 0, 0, 0, at, None))
        self._update_runs = stack.lift(self._update_run, (0, 0, 0, 0, at))
        self._single = None if stack.shape else fit.hyper_of(fit.hyper)
        self._numbers = fit.hyper_of(stack.shared(fit.hypers, fit.hyper))
        """Hyper with numbers in place of tensors where all runs agree."""
        self._step = 0
        self._at = self._epoch = torch.zeros(0)
        self._values: list[Tensor] = []
        """Losses since the last check for non-finite values."""
        self._bad_since = torch.full(stack.shape, -1, device=fit.like.device)

    def step(self, rows: StepTensors, step: int, epoch: int) -> None:
        """Take one step in every run."""
        fit, device = self.fit, self.fit.like.device
        self._step = step
        self._at, self._epoch = (
            torch.tensor(step, device=device),
            torch.tensor(epoch, device=device),
        )
        leaves = {name: p.detach().requires_grad_() for name, p in self.trained.items()}
        with torch.enable_grad():
            value, after = self._losses(leaves, self.others, self.state, fit.hyper, fit.fixed, rows)
            total = value.sum() if fit.stack.shape else value
        grads = _gradients(total, leaves)
        self.state = {name: t.detach() for name, t in after.items()}
        self._values.append(value.detach())
        if self.elementwise:
            self.trained, self.opt = self._update(
                self.trained, grads, self.opt, self._numbers, fit.fixed
            )
        else:
            self.trained, self.opt = self._update_runs(
                self.trained, grads, self.opt, fit.hyper, fit.fixed
            )

    def _loss(
        self,
        trained: Tensors,
        others: Tensors,
        state: Tensors,
        hyper: Tensors,
        fixed: Tensors,
        rows: StepTensors,
    ) -> tuple[Tensor, Tensors]:
        """Return the loss of one run, and its state."""
        run_hyper = self._single or self.fit.hyper_of(hyper)
        batch = as_batch(rows, self._at, self._epoch)
        return self.stage.loss(others | trained, fixed, state, batch, self.fit.config, run_hyper)

    def _update_run(
        self, trained: Tensors, grads: Tensors, opt: Tensors, hyper: Tensors, fixed: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Update one run."""
        return self._update(trained, grads, opt, self.fit.hyper_of(hyper), fixed)

    def _update(
        self, trained: Tensors, grads: Tensors, opt: Tensors, hyper: Any, fixed: Tensors
    ) -> tuple[Tensors, Tensors]:
        return self.stage.update.step(
            trained,
            grads,
            opt,
            step=self._step,
            steps=self.steps,
            config=self.fit.config,
            hyper=hyper,
            fixed=fixed,
            per_epoch=self.per_epoch,
        )

    def all_failed(self) -> bool:
        """Tell whether every run has had a non-finite loss."""
        return bool((self._first_bad() >= 0).all())

    def _first_bad(self) -> Tensor:
        """Return the first step with a non-finite loss of every run, else -1."""
        if self._values:
            bad = ~torch.isfinite(torch.stack(self._values))
            first = self._step + 1 - len(bad) + bad.int().argmax(0)
            newly_bad = (self._bad_since < 0) & bad.any(0)
            self._bad_since = torch.where(newly_bad, first, self._bad_since)
            self._values = []
        return self._bad_since

    def failures(self) -> dict[tuple[int, int], int]:
        """Return (task, point) -> first step with a bad loss, else the last with bad parameters."""
        since = self._first_bad().reshape(self.fit.stack.s, self.fit.stack.g).tolist()
        failed = {}
        for s, g in self.fit.runs():
            one = self.fit.stack.one(self.trained, s, g).values()
            if since[s][g] >= 0:
                failed[s, g] = int(since[s][g])
            elif not all(math.isfinite(float(t.sum())) for t in one):
                failed[s, g] = self.steps - 1
        return failed


def _gradients(value: Tensor, leaves: Tensors) -> Tensors:
    """Differentiate by autograd; torch.func.grad would keep a graph of the gradient as well."""
    if not value.requires_grad:  # a loss that reads no trained parameter
        return {name: torch.zeros_like(p) for name, p in leaves.items()}
    grads = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, grads, strict=True))
