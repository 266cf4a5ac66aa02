"""Training: a group of runs (tasks s x grid points g) through a method's stages.

    trained, opt <- update(trained, grad loss(trained, fixed, state, batch, hyper), opt)   each step

A group shares shapes, steps and, over g, the data; its losses are stacked by `torch.func.vmap`,
first over g with the data unbatched, then over s, and their sum is differentiated: no run's loss
reads another's parameters. A group of one run goes through the same functions without vmap.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from heads.contract.facts import bind
from heads.contract.method import AnyMethod
from heads.contract.rows import TaskView, Tensors
from heads.contract.settings import hyper_values, with_values
from heads.contract.stages import Stage
from heads.fitted import Fitted
from heads.training.loop import Loop
from heads.training.samplers import Batches, Drawer
from heads.training.stack import Stack
from heads.training.stacking import Group, prepare, rows_of, stackable, width_of

CHECK_EVERY = 64
"""Steps between two checks whether every stacked run has failed."""


@runtime_checkable
class Judge(Protocol):
    """Validation during training; the trainer itself sees no validation labels."""

    def accuracy(self, task: int, head: Fitted) -> float | None:
        """Return the validation accuracy for `keep="best-val"`; None keeps the last epoch."""
        ...

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        """Choose on the post grid after a stage with `search=True`; {} keeps the values."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: a task at a grid point."""

    task: int
    point: int
    head: Fitted
    failed: str | None = None
    """Why the run cannot be used (non-finite loss or parameters); None if it can."""
    watch: dict[str, list[float]] = field(default_factory=dict)
    """What was recorded (`Stage.watch`, `Method.watch`), by name."""


def train(
    method: AnyMethod,
    config: Any,
    tasks: Sequence[TaskView],
    points: Sequence[Any],
    judge: Judge | None = None,
    *,
    numbers: Sequence[int] | None = None,
    width: int | None = None,
) -> Iterator[Outcome]:
    """Train every task at every point and yield each run as it is done.

    Args:
        method: The method.
        config: Its Config.
        tasks: View of each task, as `prepare` gets it.
        points: Hypers, all floats.
        judge: Validation; None where there is none.
        numbers: Grid index of each point, in outcomes and for the judge; else 0, 1, 2, ...
        width: Largest number of stacked runs; None follows from sizes (`stacking.width_of`). 1 is a
            plain loop.
    """
    config = bind(method, config, tasks)
    stages = method.stages(config)
    waiting: list[Group] = []
    for s, task in enumerate(tasks):
        for group in prepare(method, config, s, task, points, numbers):
            if not stages:
                yield from _untrained(method, config, group)
                continue
            room = width or width_of(group, stages, config)
            for part in group.split(room):
                if waiting and not stackable(waiting, part, room):
                    yield from _fit(method, config, stages, waiting, judge)
                    waiting = []
                waiting.append(part)
    if waiting:
        yield from _fit(method, config, stages, waiting, judge)


def _untrained(method: AnyMethod, config: Any, group: Group) -> Iterator[Outcome]:
    for point, hyper in zip(group.points, group.hypers, strict=True):
        params, fixed = group.params, group.fixed
        head = Fitted(method=method, config=config, hyper=hyper, params=params, fixed=fixed)
        yield Outcome(task=group.task, point=point, head=head, watch=_prepared(method, fixed))


def _prepared(method: AnyMethod, fixed: Tensors) -> dict[str, list[float]]:
    """Record the numbers of `prepare` named by `Method.watch`."""
    return {name: [float(fixed[name])] for name in method.watch if name in fixed}


def _fit(
    method: AnyMethod,
    config: Any,
    stages: Sequence[Stage],
    groups: list[Group],
    judge: Judge | None,
) -> Iterator[Outcome]:
    """Train the runs of some groups, one a task, stacked."""
    fit = _Fit(method, config, groups, judge)
    for k, stage in enumerate(stages):
        fit.run(k, stage, searched=stage.search and k + 1 < len(stages))
    yield from fit.outcomes()


class _Fit:
    """One stacked group during training."""

    def __init__(
        self, method: AnyMethod, config: Any, groups: list[Group], judge: Judge | None
    ) -> None:
        self.method, self.config, self.groups, self.judge = method, config, groups, judge
        self.stack = Stack(len(groups), len(groups[0].points))
        self.like = groups[0].view.support.x
        self.hypers = [list(group.hypers) for group in groups]
        self.hyper = self.stack.values(self.hypers, self.like)
        self.params = self.stack.spread(self.stack.gather([g.params for g in groups]))
        self.fixed = self.stack.gather([g.fixed for g in groups])
        self.over_g = dict.fromkeys(self.fixed, False)
        """Whether a fixed tensor differs between grid points: `Stage.leave` wrote those that do."""
        self.failed: dict[tuple[int, int], str] = {}
        self.watch: dict[tuple[int, int], dict[str, list[float]]] = {}

    def runs(self) -> Iterator[tuple[int, int]]:
        for s in range(self.stack.s):
            for g in range(self.stack.g):
                yield s, g

    def head(self, s: int, g: int, params: Tensors | None = None) -> Fitted:
        return Fitted(
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
                watch=_prepared(self.method, self.groups[s].fixed) | self.watch.get((s, g), {}),
            )

    def run(self, k: int, stage: Stage, *, searched: bool) -> None:
        """Train one stage, call its `leave`, and search the post grid after it if it says so."""
        drawers = [
            Drawer(stage.batches, rows_of(stage, g.view), g.view.seed, k, g.fixed)
            for g in self.groups
        ]
        steps = stage.steps(self._sizes(drawers[0]), self.config)
        weights = [rows_of(stage, group.view).weights for group in self.groups]
        batches = Batches(drawers, weights, fixed_shape=bool(self.stack.shape))
        per_epoch = drawers[0].per_epoch
        loop = Loop(self, stage, steps, per_epoch)
        best = _Best(self.stack, stage.patience) if stage.keep == "best-val" else None
        for step in range(steps):
            epoch, at = divmod(step, per_epoch)
            loop.step(batches.rows(epoch, at), step, epoch)
            last = step + 1 == steps
            if at + 1 == per_epoch or last:
                self._record(stage.watch, loop.state)
            if best and self.judge and (last or (step + 1) % (stage.look or per_epoch) == 0):
                self._validate(best, loop.trained)
                if all(best.has_ended(s, g) for s, g in self.runs()):
                    break
            if step % CHECK_EVERY == CHECK_EVERY - 1 and loop.all_failed():
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
        counts = torch.bincount(view.support.y, minlength=view.c)
        return drawer.sizes(
            support=len(view.support),
            pool=0 if view.pool is None else len(view.pool),
            classes=view.c,
            shots=int(counts.max()),
        )

    def _validate(self, best: "_Best", trained: Tensors) -> None:
        """Offer the validation accuracy of every run that has not ended."""
        assert self.judge is not None
        for s, g in self.runs():
            if not best.has_ended(s, g):
                head = self.head(s, g, self.params | trained)
                best.offer(s, g, self.judge.accuracy(self.groups[s].task, head), trained)

    def _record(self, names: Sequence[str], state: Tensors) -> None:
        """Record the state named by `Stage.watch`."""
        watched = {name: state[name] for name in names}
        for s, g in self.runs() if watched else ():
            recorded = self.watch.setdefault((s, g), {})
            for name, t in self.stack.one(watched, s, g).items():
                recorded.setdefault(name, []).append(float(t))

    def _mark_failures(self, k: int, loop: Loop, steps: int) -> None:
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

    def hyper_of(self, values: Mapping[str, Any]) -> Any:
        return with_values(self.hypers[0][0], values)

    def fixed_dims(self) -> Any:
        return {n: 0 if self.over_g[n] else None for n in self.fixed}


class _Best:
    """The parameters with the best validation accuracy of each run; the latest wins ties."""

    def __init__(self, stack: Stack, patience: int) -> None:
        self.stack, self.patience = stack, patience
        self.params: Tensors = {}
        self.accuracy: dict[tuple[int, int], float] = {}
        self.since: dict[tuple[int, int], int] = {}
        """Validations since the accuracy last rose."""

    def has_ended(self, s: int, g: int) -> bool:
        """Tell whether a run has used up its patience; later parameters of it are not used."""
        return 0 < self.patience <= self.since.get((s, g), 0)

    def offer(self, s: int, g: int, accuracy: float | None, trained: Tensors) -> None:
        if accuracy is not None:
            before = self.accuracy.get((s, g), -1.0)
            self.since[s, g] = 0 if accuracy > before else self.since.get((s, g), 0) + 1
            if accuracy < before:
                return
            self.accuracy[s, g] = accuracy
        if not self.stack.shape or not self.params:
            self.params = {name: t.clone() for name, t in trained.items()}
            return
        place = tuple(i for i, n in ((s, self.stack.s), (g, self.stack.g)) if n > 1)
        for name, kept in self.params.items():
            kept[place] = trained[name][place]
