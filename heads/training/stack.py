"""Stacked runs: a function of one run becomes a function of all runs [s, g] by vmap.

Tasks s have their own data; grid points g of a task share it, so tensors that differ only between
tasks enter the inner vmap unbatched. Axes of length one are left out: one run is plain torch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from heads.contract.rows import Tensors
from heads.contract.settings import hyper_values


class Stack:
    """s tasks by g grid points."""

    def __init__(self, s: int, g: int) -> None:
        self.s, self.g = s, g

    def lift(self, function: Callable[..., Any], over_g: tuple[Any, ...]) -> Callable[..., Any]:
        """Map a function; `over_g` says which arguments differ between grid points (0 or None)."""
        if self.g > 1:
            function = torch.func.vmap(function, in_dims=over_g)
        return torch.func.vmap(function) if self.s > 1 else function

    def gather(self, each: list[Tensors]) -> Tensors:
        """Stack the tensors of the tasks, given as one dict per task, along a first axis."""
        if self.s == 1:
            return each[0]
        return {name: torch.stack([e[name] for e in each]) for name in each[0]}

    def spread(self, tensors: Tensors) -> Tensors:
        """Expand tensors that differ only between tasks over the grid points."""
        if self.g == 1:
            return tensors
        at = 1 if self.s > 1 else 0
        return {
            name: t.unsqueeze(at).expand(*t.shape[:at], self.g, *t.shape[at:])
            for name, t in tensors.items()
        }

    def values(self, hypers: list[list[Any]], like: Tensor) -> Tensors:
        """Turn Hypers, indexed [s][g], into one tensor per field."""
        rows = [[hyper_values(h) for h in row] for row in hypers]
        names = rows[0][0]
        table = {n: like.new_tensor([[r[n] for r in row] for row in rows]) for n in names}
        return {n: t.reshape(self.shape) for n, t in table.items()}

    def shared(self, hypers: list[list[Any]], values: Tensors) -> dict[str, Any]:
        """Return for each field the number on which all runs agree, else its tensor in `values`."""
        rows = [hyper_values(h) for row in hypers for h in row]
        return {
            name: tensor if any(r[name] != rows[0][name] for r in rows) else rows[0][name]
            for name, tensor in values.items()
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading axes of every stacked tensor."""
        return tuple(n for n in (self.s, self.g) if n > 1)

    def one(
        self, tensors: Tensors, s: int, g: int, over_g: dict[str, bool] | None = None
    ) -> Tensors:
        """Return the tensors of run (s, g).

        Args:
            tensors: Name -> stacked tensor.
            s: Index of the task.
            g: Index of the grid point.
            over_g: Name -> whether the tensor has an axis of grid points; None: all have.
        """
        taken = {}
        for name, t in tensors.items():
            here = t[s] if self.s > 1 else t
            varies = over_g is None or over_g[name]
            taken[name] = here[g] if self.g > 1 and varies else here
        return taken
