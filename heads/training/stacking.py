"""Which runs are stacked: groups that share what `prepare` built, and how many runs fit.

`prepare` is called once for all grid points that agree on the hyper-parameters it reads; those
points then share their data. The number of stacked runs follows from memory and, on a CPU, from the
work of a step: there stacking saves only call overhead, so runs with much work are trained one by
one. The rule depends on sizes and never on timing, so a task always gives the same bits.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.stages import Stage
from heads.training.samplers import Drawer

CPU_WORK = 8e6
"""Multiply-adds of a forward step below which call overhead dominates on a CPU."""
UPDATE_ROWS = 64
"""Rows whose multiply-adds take as long as an optimiser's passes over the parameters: at d = 512 a
map of 25 rows was 1.4 times slower stacked, at d = 256 it took 0.7 of the time."""
CPU_BYTES = 512 * 2**20
TRAINED_BYTES = 4 * 2**20
"""Largest stacked parameters on a CPU, so that they and their gradients fit its cache: with 256
maps of 128 x 128 a run took 1.3 times as long as with 64."""
CUDA_SHARE = 0.25
"""Share of the device memory that a stacked group may fill."""
MAX_WIDTH = 256


@dataclass(frozen=True, kw_only=True)
class Group:
    """Grid points of one task that share what `prepare` built."""

    task: int
    view: TaskView
    points: list[int]
    hypers: list[Any]
    params: Tensors
    fixed: Tensors

    def split(self, width: int) -> "list[Group]":
        """Cut into groups of at most `width` grid points."""
        return [
            Group(
                task=self.task,
                view=self.view,
                points=self.points[i : i + width],
                hypers=self.hypers[i : i + width],
                params=self.params,
                fixed=self.fixed,
            )
            for i in range(0, len(self.points), width)
        ]


def prepare(
    method: AnyMethod,
    config: Any,
    s: int,
    task: TaskView,
    points: Sequence[Any],
    numbers: Sequence[int] | None = None,
) -> Iterator[Group]:
    """Call `prepare` once for all points that agree on the hyper-parameters it reads.

    `numbers` are the grid indices of the points; else 0, 1, 2, ...
    """
    numbers = numbers or range(len(points))
    left = list(range(len(points)))
    read = method.prepare_fields
    while left:
        first = points[left[0]]
        params, fixed = method.prepare(task, config, first)
        same = [i for i in left if all(getattr(points[i], n) == getattr(first, n) for n in read)]
        yield Group(
            task=s,
            view=task,
            points=[numbers[i] for i in same],
            hypers=[points[i] for i in same],
            params=params,
            fixed=fixed,
        )
        left = [i for i in left if i not in same]


def rows_of(stage: Stage, view: TaskView) -> Rows:
    """Return the rows that a stage draws its batches from."""
    if stage.batches.kind != "pool":
        return view.support
    assert view.pool is not None, "a stage with pool batches needs the pool"
    return view.pool


def width_of(group: Group, stages: Sequence[Stage], config: Any) -> int:
    """Return the largest number of runs like these to stack."""
    work, memory, moved = 0, 1, 1
    for k, stage in enumerate(stages):
        drawer = Drawer(stage.batches, rows_of(stage, group.view), group.view.seed, k, group.fixed)
        trained = sum(p.numel() for p in stage.trained(group.params).values())
        widest = max(max(p.shape, default=1) for p in group.params.values())
        size = group.view.support.x.element_size()
        # gradient, two moments, old and new value; activations of a batch against each parameter
        rows = drawer.batch * _rows_each(group) + _rows_beside(stage, group)
        memory = max(memory, size * (6 * trained + 8 * rows * widest))
        work = max(work, (rows + UPDATE_ROWS) * trained)
        moved = max(moved, size * trained)
    device = group.view.support.x.device
    if device.type != "cuda":
        if work > CPU_WORK:
            return 1
        return max(1, min(MAX_WIDTH, CPU_BYTES // memory, TRAINED_BYTES // moved))
    available = torch.cuda.get_device_properties(device).total_memory
    return max(1, min(MAX_WIDTH, int(CUDA_SHARE * available) // memory))


def _rows_each(group: Group) -> int:
    """Return the rows a step computes with for each drawn row; `prepare` may keep several."""
    n = len(group.view.support.x)
    kept = [t for t in group.fixed.values() if t.dim() > 2 and t.shape[0] == n]
    return max([1, *(math.prod(t.shape[1:-1]) for t in kept)])


def _rows_beside(stage: Stage, group: Group) -> int:
    """Return the rows that are drawn beside a batch from tensors with several rows at a place."""
    drawn = [(group.fixed[name], count) for name, count in stage.batches.beside]
    return sum(min(c, len(t)) * math.prod(t.shape[1:-1]) for t, c in drawn if t.dim() > 2)


def stackable(waiting: list[Group], new: Group, room: int) -> bool:
    """Tell whether a group can be stacked with others: equal shapes and points, and room left."""
    first = waiting[0]
    if (len(waiting) + 1) * len(new.points) > room or first.points != new.points:
        return False
    return _signature(first) == _signature(new)


def _signature(group: Group) -> list[tuple[object, ...]]:
    """Return the shapes of a run, which must agree in a stack."""
    shapes: list[tuple[object, ...]] = [
        (part, name, tuple(tensor.shape))
        for part, tensors in (("params", group.params), ("fixed", group.fixed))
        for name, tensor in sorted(tensors.items())
    ]
    for role, rows in (("support", group.view.support), ("pool", group.view.pool)):
        if rows is not None:
            shapes.append((role, tuple(rows.x.shape)))
            shapes += [(role, kind, tuple(rows.kinds[kind].shape)) for kind in sorted(rows.kinds)]
            if rows.labels is not None:  # the balanced sampler's shapes follow the counts
                counts = torch.bincount(rows.labels, minlength=group.view.c)
                shapes.append((role, tuple(counts.tolist())))
    return shapes
