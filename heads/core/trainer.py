"""Training: a group of runs (tasks s x grid points g) through a method's stages.

    trained, opt <- update(trained, grad loss(trained, fixed, state, batch, hyper), opt)   each step

A group shares shapes, steps and, over g, the data; it is stacked by `torch.func.vmap`, first over
g with the data unbatched, then over s. A group of one run goes through the same functions
without vmap. How many runs are stacked follows from bytes and, on a CPU, from the work of a step:
there stacking only saves the overhead of calls, so runs with real work go one by one.
The rule reads sizes only, never a clock: the same task gives the same bits again.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from heads.core.contract import (
    Method,
    RoleRows,
    Stage,
    TaskView,
    Tensors,
    hyper_values,
    with_values,
)
from heads.core.samplers import Draw, Drawer, as_batch
from heads.core.scoring import Head

CPU_WORK = 8e6
"""Multiply-adds of a forward step below which a CPU is bound by the overhead of calls."""
CPU_BYTES = 512 * 2**20
CUDA_SHARE = 0.25
"""Share of the free device memory that a stacked group may fill."""
MAX_WIDTH = 256


@runtime_checkable
class Judge(Protocol):
    """What validation answers while a run is trained; the trainer itself sees no label of it."""

    def accuracy(self, task: int, head: Head) -> float | None:
        """Return the validation accuracy for `keep="best-val"`; None keeps the last epoch."""
        ...

    def search(self, task: int, point: int, stage: int, head: Head) -> dict[str, Real]:
        """Choose on the post grid after a stage with `search=True`; {} keeps the values."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: a task at a grid point."""

    task: int
    point: int
    head: Head
    failed: str | None = None
    """Why the run cannot be used: a loss or parameters that are not finite."""
    watch: dict[str, list[float]] = field(default_factory=dict)
    """`watch.*` entries of the state at the end of every epoch, by name."""


def train(
    method: Method,
    config: Any,
    tasks: Sequence[TaskView],
    points: Sequence[Any],
    judge: Judge | None = None,
    *,
    width: int | None = None,
) -> Iterator[Outcome]:
    """Train every task at every point and yield each run as it is done.

    Args:
        method: The method's module.
        config: Its Config.
        tasks: What `prepare` may see of each task.
        points: Hypers, all floats.
        judge: Answers from validation; None where there is none.
        width: Runs stacked at most; None is the rule above. 1 is a plain loop.
    """
    stages = method.stages(config)
    waiting: list[_Group] = []
    for s, task in enumerate(tasks):
        for cell in _prepare(method, config, s, task, points):
            if not stages:
                yield from cell.outcomes(method, config)
                continue
            room = width or _width(cell, stages, config)
            for part in cell.split(room):
                if waiting and not _stackable(waiting, part, room):
                    yield from _fit(method, config, stages, waiting, judge)
                    waiting = []
                waiting.append(part)
    if waiting:
        yield from _fit(method, config, stages, waiting, judge)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Grid points of one task that share what `prepare` built."""

    task: int
    view: TaskView
    points: list[int]
    hypers: list[Any]
    params: Tensors
    fixed: Tensors

    def split(self, width: int) -> "list[_Group]":
        return [
            _Group(
                task=self.task,
                view=self.view,
                points=self.points[i : i + width],
                hypers=self.hypers[i : i + width],
                params=self.params,
                fixed=self.fixed,
            )
            for i in range(0, len(self.points), width)
        ]

    def outcomes(self, method: Method, config: Any) -> Iterator[Outcome]:
        for point, hyper in zip(self.points, self.hypers, strict=True):
            head = Head(
                method=method, config=config, hyper=hyper, params=self.params, fixed=self.fixed
            )
            yield Outcome(task=self.task, point=point, head=head)


def _prepare(
    method: Method, config: Any, s: int, task: TaskView, points: Sequence[Any]
) -> Iterator[_Group]:
    """Call `prepare` once for all points that agree on the hyper-parameters it read."""
    left = list(range(len(points)))
    while left:
        first = points[left[0]]
        read: set[str] = set()
        params, fixed = method.prepare(task, config, _watched(first, read))
        same = [i for i in left if all(getattr(points[i], n) == getattr(first, n) for n in read)]
        yield _Group(
            task=s,
            view=task,
            points=same,
            hypers=[points[i] for i in same],
            params=params,
            fixed=fixed,
        )
        left = [i for i in left if i not in same]


def _watched(hyper: Any, read: set[str]) -> Any:
    """Return a copy of a Hyper that notes which fields are read."""
    names = set(hyper_values(hyper))

    def note(self: Any, name: str) -> Any:
        if name in names:
            read.add(name)
        return object.__getattribute__(self, name)

    watched = type(type(hyper).__name__, (type(hyper),), {"__getattribute__": note})
    copied = object.__new__(watched)
    for name, value in hyper_values(hyper).items():
        object.__setattr__(copied, name, value)
    return copied


def _rows(stage: Stage, view: TaskView) -> RoleRows:
    if stage.batches.kind != "pool":
        return view.support
    assert view.pool is not None, "a stage with pool batches needs the pool"
    return view.pool


def _width(cell: _Group, stages: Sequence[Stage], config: Any) -> int:
    """Tell how many runs like these are stacked."""
    work, held = 0, 1
    for k, stage in enumerate(stages):
        drawer = Drawer(stage.batches, _rows(stage, cell.view), cell.view.seed, k)
        trained = sum(cell.params[n].numel() for n in stage.trains)
        widest = max(max(p.shape, default=1) for p in cell.params.values())
        size = cell.view.support.x.element_size()
        # gradient, two moments, old and new value; activations of a batch against each parameter
        held = max(held, size * (6 * trained + 8 * drawer.batch * widest))
        work = max(work, drawer.batch * trained)
    device = cell.view.support.x.device
    if device.type != "cuda":
        return max(1, min(MAX_WIDTH, CPU_BYTES // held)) if work <= CPU_WORK else 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MAX_WIDTH, int(CUDA_SHARE * free) // held))


def _stackable(waiting: list[_Group], new: _Group, room: int) -> bool:
    """Tell whether a group can join: another task, equal shapes and points, room left."""
    first = waiting[0]
    if (len(waiting) + 1) * len(new.points) > room or first.points != new.points:
        return False
    return _signature(first) == _signature(new)


def _signature(group: _Group) -> list[tuple[object, ...]]:
    named = {f"params.{n}": t for n, t in group.params.items()}
    named |= {f"fixed.{n}": t for n, t in group.fixed.items()}
    for role, rows in (("support", group.view.support), ("pool", group.view.pool)):
        if rows is not None:
            named |= {f"{role}.{n}": t for n, t in {"x": rows.x, **rows.extra}.items()}
            if rows.labels is not None:  # the balanced sampler's shapes follow the counts
                counts = torch.bincount(rows.labels, minlength=group.view.c)
                named |= {f"{role}.counts": counts}
    return sorted(
        (n, tuple(t.shape), *(t.tolist() if n.endswith(".counts") else ()))
        for n, t in named.items()
    )


class _Stack:
    """Puts runs side by side: a function of one run becomes one of all runs [s, g]."""

    def __init__(self, s: int, g: int) -> None:
        self.s, self.g = s, g

    def lift(self, function: Callable[..., Any], over_g: tuple[Any, ...]) -> Callable[..., Any]:
        """Map a function; `over_g` says which arguments differ between grid points (0 or None)."""
        if self.g > 1:
            function = torch.func.vmap(function, in_dims=over_g)
        return torch.func.vmap(function) if self.s > 1 else function

    def gather(self, each: list[Tensors]) -> Tensors:
        """Stack one dict of tensors a task."""
        if self.s == 1:
            return each[0]
        return {name: torch.stack([e[name] for e in each]) for name in each[0]}

    def spread(self, tensors: Tensors) -> Tensors:
        """Repeat over g what so far differed between tasks alone."""
        if self.g == 1:
            return tensors
        at = 1 if self.s > 1 else 0
        return {
            name: t.unsqueeze(at).expand(*t.shape[:at], self.g, *t.shape[at:])
            for name, t in tensors.items()
        }

    def values(self, hypers: list[list[Any]], like: Tensor) -> Tensors:
        """Turn [s][g] Hypers into one tensor a field."""
        rows = [[hyper_values(h) for h in row] for row in hypers]
        names = rows[0][0]
        table = {n: like.new_tensor([[r[n] for r in row] for row in rows]) for n in names}
        return {n: t.reshape(self.shape) for n, t in table.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(n for n in (self.s, self.g) if n > 1)

    def one(
        self, tensors: Tensors, s: int, g: int, over_g: dict[str, bool] | None = None
    ) -> Tensors:
        """Take one run's tensors; those that `over_g` denies differ between tasks alone."""
        taken = {}
        for name, t in tensors.items():
            here = t[s] if self.s > 1 else t
            varies = over_g is None or over_g[name]
            taken[name] = here[g] if self.g > 1 and varies else here
        return taken


def _fit(
    method: Method,
    config: Any,
    stages: Sequence[Stage],
    groups: list[_Group],
    judge: Judge | None,
) -> Iterator[Outcome]:
    """Train the runs of some groups, one a task, stacked."""
    fit = _Fit(method, config, groups, judge)
    for k, stage in enumerate(stages):
        fit.run(k, stage, searched=stage.search and k + 1 < len(stages))
    yield from fit.outcomes()


class _Fit:
    """The moving parts of one stacked group."""

    def __init__(
        self, method: Method, config: Any, groups: list[_Group], judge: Judge | None
    ) -> None:
        self.method, self.config, self.groups, self.judge = method, config, groups, judge
        self.stack = _Stack(len(groups), len(groups[0].points))
        self.like = groups[0].view.support.x
        self.hypers = [list(group.hypers) for group in groups]
        self.hyper = self.stack.values(self.hypers, self.like)
        self.params = self.stack.spread(self.stack.gather([g.params for g in groups]))
        self.fixed = self.stack.gather([g.fixed for g in groups])
        self.over_g = dict.fromkeys(self.fixed, False)
        """Which fixed tensors differ between grid points: those that a stage left behind."""
        self.failed: dict[tuple[int, int], str] = {}
        self.watch: dict[tuple[int, int], dict[str, list[float]]] = {}

    def runs(self) -> Iterator[tuple[int, int]]:
        for s in range(self.stack.s):
            for g in range(self.stack.g):
                yield s, g

    def head(self, s: int, g: int, params: Tensors | None = None) -> Head:
        return Head(
            method=self.method,
            config=self.config,
            hyper=self.hypers[s][g],
            params=self.stack.one(self.params if params is None else params, s, g),
            fixed=self.stack.one(self.fixed, s, g, self.over_g),
        )

    def outcomes(self) -> Iterator[Outcome]:
        for s, g in self.runs():
            yield Outcome(
                task=self.groups[s].task,
                point=self.groups[s].points[g],
                head=self.head(s, g),
                failed=self.failed.get((s, g)),
                watch=self.watch.get((s, g), {}),
            )

    def run(self, k: int, stage: Stage, *, searched: bool) -> None:
        """Train one stage, leave it, and search after it where it says so."""
        drawers = [Drawer(stage.batches, _rows(stage, g.view), g.view.seed, k) for g in self.groups]
        steps = stage.steps(self._sizes(drawers[0]), self.config)
        loop = _Loop(self, stage, steps)
        weights = [None if stage.batches.kind == "pool" else g.view.weights for g in self.groups]
        draws: list[Draw] = []
        per_epoch = drawers[0].per_epoch
        best: _Best | None = None
        for step in range(steps):
            epoch, at = divmod(step, per_epoch)
            if at == 0:
                draws = [drawer.draw(epoch) for drawer in drawers]
            rows = [d.gather(draws[i], at, weights[i]) for i, d in enumerate(drawers)]
            loop.step(self.stack.gather(rows), step, epoch)
            if at + 1 == per_epoch or step + 1 == steps:
                self._note_watch(loop.state)
                if stage.keep == "best-val" and self.judge is not None:
                    best = self._judge_epoch(best or _Best(self.stack), loop.trained)
                if loop.hopeless():
                    break
        self.params = self.params | (best.params if best and best.params else loop.trained)
        self._mark_failures(k, loop, steps)
        if stage.leave is not None:
            self._leave(stage.leave)
        if searched and self.judge is not None:
            for s, g in self.runs():
                if (s, g) not in self.failed:
                    group = self.groups[s]
                    values = self.judge.search(group.task, group.points[g], k, self.head(s, g))
                    self.hypers[s][g] = with_values(self.hypers[s][g], values)
            self.hyper = self.stack.values(self.hypers, self.like)

    def _sizes(self, drawer: Drawer) -> Any:
        view = self.groups[0].view
        assert view.support.labels is not None
        counts = torch.bincount(view.support.labels, minlength=view.c)
        return drawer.sizes(
            support=len(view.support.x),
            pool=0 if view.pool is None else len(view.pool.x),
            classes=view.c,
            shots=int(counts.max()),
        )

    def _judge_epoch(self, best: "_Best", trained: Tensors) -> "_Best":
        assert self.judge is not None
        for s, g in self.runs():
            head = self.head(s, g, self.params | trained)
            best.offer(s, g, self.judge.accuracy(self.groups[s].task, head), trained)
        return best

    def _note_watch(self, state: Tensors) -> None:
        watched = {n: t for n, t in state.items() if n.startswith("watch.")}
        if watched:
            for s, g in self.runs():
                kept = self.watch.setdefault((s, g), {})
                for name, t in self.stack.one(watched, s, g).items():
                    kept.setdefault(name.removeprefix("watch."), []).append(float(t))

    def _mark_failures(self, k: int, loop: "_Loop", steps: int) -> None:
        for (s, g), step in loop.failures().items():
            values = ", ".join(f"{n}={v:g}" for n, v in hyper_values(self.hypers[s][g]).items())
            self.failed.setdefault(
                (s, g),
                f"stage {k + 1} of {self.method.name} was not finite from step {step + 1} of "
                f"{steps} ({values})",
            )

    def _leave(self, leave: Callable[..., Tensors]) -> None:
        """Let a finished stage write into `fixed`; what it wrote differs between grid points."""
        written: set[str] = set()

        def one(params: Tensors, fixed: Tensors, hyper: Tensors) -> Tensors:
            full = leave(params, fixed, self.config, self.hyper_of(hyper))
            new = {n: t for n, t in full.items() if n not in fixed or t is not fixed[n]}
            written.update(new)
            return new

        new = self.stack.lift(one, (0, self.fixed_dims(), 0))(self.params, self.fixed, self.hyper)
        self.fixed = self.fixed | new
        self.over_g |= dict.fromkeys(written, True)

    def hyper_of(self, values: Tensors) -> Any:
        return with_values(self.hypers[0][0], values)

    def fixed_dims(self) -> Any:
        return {n: 0 if self.over_g[n] else None for n in self.fixed}


class _Loop:
    """The steps of one stage for a stacked group."""

    def __init__(self, fit: _Fit, stage: Stage, steps: int) -> None:
        self.fit, self.stage, self.steps = fit, stage, steps
        self.trained = {n: fit.params[n] for n in sorted(stage.trains)}
        self.others = {n: p for n, p in fit.params.items() if n not in stage.trains}
        stack = fit.stack
        self.opt = stack.lift(stage.update.init, (0,))(self.trained)
        self.state: Tensors = {}
        start = stage.start
        if start is not None:

            def begin(params: Tensors, fixed: Tensors, hyper: Tensors) -> Tensors:
                return start(params, fixed, fit.config, fit.hyper_of(hyper))

            dims = (0, fit.fixed_dims(), 0)
            self.state = stack.lift(begin, dims)(fit.params, fit.fixed, fit.hyper)
        self.bad_since = torch.full(stack.shape, -1, device=fit.like.device)

    def step(self, rows: Tensors, step: int, epoch: int) -> None:
        """Take one step in every run."""
        fit, stage = self.fit, self.stage
        device = fit.like.device
        at, in_epoch = torch.tensor(step, device=device), torch.tensor(epoch, device=device)

        def one(
            trained: Tensors,
            others: Tensors,
            opt: Tensors,
            state: Tensors,
            hyper: Tensors,
            fixed: Tensors,
            rows: Tensors,
        ) -> tuple[Tensors, Tensors, Tensors, Tensor]:
            chosen = fit.hyper_of(hyper)
            batch = as_batch(rows, at, in_epoch)

            def objective(moving: Tensors) -> tuple[Tensor, tuple[Tensors, Tensor]]:
                value, after = stage.loss(others | moving, fixed, state, batch, fit.config, chosen)
                return value, (after, value)

            if fit.stack.shape:
                grads, (after, value) = torch.func.grad(objective, has_aux=True)(trained)
            else:
                grads, after, value = _plain_grad(objective, trained)
            trained, opt = stage.update.step(
                trained,
                grads,
                opt,
                step=step,
                steps=self.steps,
                config=fit.config,
                hyper=chosen,
                fixed=fixed,
            )
            return trained, opt, after, value

        lifted = fit.stack.lift(one, (0, 0, 0, 0, 0, fit.fixed_dims(), None))
        self.trained, self.opt, self.state, value = lifted(
            self.trained, self.others, self.opt, self.state, fit.hyper, fit.fixed, rows
        )
        first = (self.bad_since < 0) & ~torch.isfinite(value)
        self.bad_since = torch.where(first, at, self.bad_since)

    def hopeless(self) -> bool:
        """Tell whether no run of the group can be used any more."""
        return bool((self.bad_since >= 0).all())

    def failures(self) -> dict[tuple[int, int], int]:
        """Return (task, point) -> first step with a loss, or parameters, that are not finite."""
        since = self.bad_since.reshape(self.fit.stack.s, self.fit.stack.g).tolist()
        failed = {}
        for s, g in self.fit.runs():
            one = self.fit.stack.one(self.trained, s, g).values()
            if since[s][g] >= 0:
                failed[s, g] = int(since[s][g])
            elif not all(math.isfinite(float(t.sum())) for t in one):
                failed[s, g] = self.steps - 1
        return failed


def _plain_grad(
    objective: Callable[[Tensors], tuple[Tensor, tuple[Tensors, Tensor]]], trained: Tensors
) -> tuple[Tensors, Tensors, Tensor]:
    """Differentiate a single run by autograd: torch.func.grad keeps a graph of the gradient too."""
    leaves = {name: p.detach().requires_grad_() for name, p in trained.items()}
    with torch.enable_grad():
        value, (after, _) = objective(leaves)
    if not value.requires_grad:  # a loss that reads no trained parameter
        return {name: torch.zeros_like(p) for name, p in trained.items()}, after, value
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    grads = {
        name: torch.zeros_like(p) if grad is None else grad
        for (name, p), grad in zip(trained.items(), found, strict=True)
    }
    return grads, {name: t.detach() for name, t in after.items()}, value.detach()


class _Best:
    """The epoch with the best validation accuracy, run by run; of equals the latest."""

    def __init__(self, stack: _Stack) -> None:
        self.stack = stack
        self.params: Tensors = {}
        self.accuracy: dict[tuple[int, int], float] = {}

    def offer(self, s: int, g: int, accuracy: float | None, trained: Tensors) -> None:
        if accuracy is not None and accuracy < self.accuracy.get((s, g), -1.0):
            return
        if accuracy is not None:
            self.accuracy[s, g] = accuracy
        if not self.stack.shape or not self.params:
            self.params = dict(trained) if not self.stack.shape else _clone(trained)
            return
        place = tuple(i for i, n in ((s, self.stack.s), (g, self.stack.g)) if n > 1)
        for name, kept in self.params.items():
            kept[place] = trained[name][place]


def _clone(tensors: Tensors) -> Tensors:
    return {name: t.clone() for name, t in tensors.items()}
