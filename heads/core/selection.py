"""Choosing hyper-parameters without a look at the query.

    few-shot-val   min(K, 4) validation images a class, as CoOp (the default)
    k-shot-val     K validation images a class
    full-val       the whole validation split
    cv             pooled folds of the support, for data without validation
    none           the defaults
    oracle         the query itself; marked in every table

The train grid is walked by training, the post grid by combining anew. Of points that are equally
right on validation the default wins, then the one nearest to it. The head trained at the chosen
point is used as it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Num
from torch import Tensor

from featcache.errors import TaskError, TrainingError, UnknownNameError, UsageError
from heads.core import scoring
from heads.core.contract import Grid, Method, RoleRows, hyper_values, with_values
from heads.core.folds import folds
from heads.core.scoring import Head
from heads.core.settings import Settings
from heads.core.tasks import Task
from heads.core.trainer import Outcome, train

MODES = ("few-shot-val", "k-shot-val", "full-val", "cv", "none", "oracle")
Progress = Callable[[str, int, int], None]
"""Called as (what is being done, done so far, of how many)."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The head of one task, and how it was chosen."""

    head: Head
    accuracy: float | None
    """On validation, in [0, 1]; None where nothing was validated."""
    failed: tuple[str, ...] = ()
    """Grid points that could not be used, and why."""
    watch: dict[str, list[float]] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """Return the hyper-parameters of the head."""
        return hyper_values(self.head.hyper)


def has_choice(method: Method, settings: Settings) -> bool:
    """Tell whether validation can change anything for this method."""
    stages = method.stages(settings.config)
    return settings.choices > 1 or any(s.keep == "best-val" or s.search for s in stages)


def select(
    method: Method,
    settings: Settings,
    tasks: Sequence[Task],
    mode: str,
    *,
    progress: Progress | None = None,
) -> list[Chosen]:
    """Train each task over the grid and keep the best head.

    Args:
        method: The method's module.
        settings: Its settings and grids.
        tasks: Their `val` is what the mode says, the query itself for `oracle`.
        mode: One of MODES.
        progress: Told of every finished run.

    Raises:
        UnknownNameError: If there is no such mode.
        TrainingError: If every grid point of a task failed.
    """
    if mode not in MODES:
        raise UnknownNameError("selection", mode, MODES)
    tick = _Ticker(progress)
    if mode == "none":
        return _defaults(method, settings, tasks, tick)
    if mode == "cv":
        return [_cross_validate(method, settings, task, tick) for task in tasks]
    grid = _Walk(settings)
    judge = _Validation(settings, [task.val for task in tasks])
    boards = [_Board(grid) for _ in tasks]
    views = [task.view for task in tasks]
    tick.of(len(tasks) * len(grid.points))
    for outcome in train(method, settings.config, views, grid.hypers(), judge):
        rows = judge.rows(outcome.task)
        hits = None
        if outcome.failed is None:
            hits = scoring.hits_on_grid(outcome.head, rows, settings.post_grid)
        boards[outcome.task].offer(outcome, hits)
        tick.done()
    return [board.chosen(method, len(judge.rows(s).x)) for s, board in enumerate(boards)]


def _defaults(
    method: Method, settings: Settings, tasks: Sequence[Task], tick: "_Ticker"
) -> list[Chosen]:
    own = [n for g in (settings.train_grid, settings.post_grid) for n in g.axes]
    if given := [n for n in own if n in settings.given]:
        raise UsageError(
            f"Without validation nothing can choose among the values of {given[0]} "
            f"({settings.given[given[0]]}). Give one value, or let --selection few-shot-val (which "
            f"needs val images) or cv (two shots or more) choose."
        )
    tick.of(len(tasks))
    chosen = []
    views = [task.view for task in tasks]
    for outcome in train(method, settings.config, views, [settings.hyper]):
        if outcome.failed is not None:
            raise _all_failed(method, [outcome.failed])
        chosen.append(Chosen(head=outcome.head, accuracy=None, watch=outcome.watch))
        tick.done()
    return chosen


class _Walk:
    """All grid points, and which comes first among equals."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.points = settings.train_grid.points()
        default = hyper_values(settings.hyper)
        train = [_distance(p, settings.train_grid, default) for p in self.points]
        post = [_distance(p, settings.post_grid, default) for p in settings.post_grid]
        self.distance = np.add.outer(train, post)
        """[train points, post points], in steps of the grids; 0 is the default."""

    def hypers(self) -> list[Any]:
        return [with_values(self.settings.hyper, p) for p in self.points]

    def best(self, hits: Num[np.ndarray, "g p"], points: Sequence[int]) -> tuple[int, int]:
        """Return (row of `hits`, post point): most hits, then the nearest, then the first."""
        distance = self.distance[list(points)]
        ties = np.where(hits == hits.max(), distance, np.inf)
        i, j = np.unravel_index(int(ties.argmin()), ties.shape)
        return int(i), int(j)


def _distance(point: Mapping[str, float], grid: Grid, default: Mapping[str, float]) -> float:
    """Sum over the axes how many values of the grid lie between the point and the default.

    A default between two values counts by where it lies, in logarithms if all are positive.
    """
    total = 0.0
    for name, value in point.items():
        axis = np.array(sorted(grid.axes[name]), dtype=float)
        pair = np.array([value, default[name]])
        if axis[0] > 0 and default[name] > 0:
            axis, pair = np.log(axis), np.log(pair)
        ranks = np.interp(pair, axis, np.arange(len(axis)))
        total += abs(float(ranks[0] - ranks[1]))
    return round(total, 9)


class _Board:
    """The best head of one task so far; the others are let go."""

    def __init__(self, grid: _Walk) -> None:
        self.grid = grid
        self.failed: list[str] = []
        self._best: tuple[tuple[float, float, int], Outcome, int] | None = None

    def offer(self, outcome: Outcome, hits: Tensor | None) -> None:
        if hits is None:
            self.failed.append(outcome.failed or "")
            return
        counts = hits.cpu().numpy()[None]
        _, j = self.grid.best(counts, [outcome.point])
        rank = (-float(counts[0, j]), self.grid.distance[outcome.point, j], outcome.point)
        if self._best is None or rank < self._best[0]:
            self._best = (rank, outcome, j)

    def chosen(self, method: Method, n: int) -> Chosen:
        if self._best is None:
            raise _all_failed(method, self.failed)
        (minus_hits, _, _), outcome, j = self._best
        point = self.grid.settings.post_grid.points()[j]
        return Chosen(
            head=outcome.head.at(point),
            accuracy=-minus_hits / n,
            failed=tuple(self.failed),
            watch=outcome.watch,
        )


class _Validation:
    """Answers the trainer from each task's validation rows."""

    def __init__(self, settings: Settings, val: Sequence[RoleRows | None]) -> None:
        self.settings, self.val = settings, val
        self.post = _Walk(replace(settings, train_grid=Grid()))
        self.seen: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        """(point, stage) -> hits on the post grid, summed over tasks; `cv` pools them."""

    def rows(self, task: int) -> RoleRows:
        rows = self.val[task]
        if rows is None:
            raise TaskError(
                "There are no validation images to select on. "
                "Use --selection cv (folds of the support) or none (the defaults)."
            )
        return rows

    def accuracy(self, task: int, head: Head) -> float | None:
        return scoring.accuracy(head, self.rows(task))

    def search(self, task: int, point: int, stage: int, head: Head) -> dict[str, float]:
        grid = self.settings.post_grid
        hits = scoring.hits_on_grid(head, self.rows(task), grid).cpu().numpy()
        self.seen[point, stage] = self.seen.get((point, stage), 0) + hits
        return self.pick(hits)

    def pick(self, hits: Num[np.ndarray, " p"]) -> dict[str, float]:
        return self.settings.post_grid.points()[self.post.best(hits[None], [0])[1]]


class _Pooled:
    """Answers the final training of `cv`: what the folds chose together, no validation."""

    def __init__(self, folds: _Validation, point: int) -> None:
        self.folds, self.point = folds, point

    def accuracy(self, task: int, head: Head) -> float | None:
        return None

    def search(self, task: int, point: int, stage: int, head: Head) -> dict[str, float]:
        return self.folds.pick(self.folds.seen[self.point, stage])


def _cross_validate(method: Method, settings: Settings, task: Task, tick: "_Ticker") -> Chosen:
    """Pool the right answers of all folds, choose, then train once on the whole support."""
    grid = _Walk(settings)
    views, held_out = folds(task.view)
    judge = _Validation(settings, held_out)
    tick.of(len(views) * len(grid.points) + 1)
    hits = np.zeros(grid.distance.shape)
    failed: list[str] = []
    for outcome in train(method, settings.config, views, grid.hypers(), judge):
        if outcome.failed is None:
            rows = judge.rows(outcome.task)
            counts = scoring.hits_on_grid(outcome.head, rows, settings.post_grid)
            hits[outcome.point] += counts.cpu().numpy()
        else:
            failed.append(outcome.failed)
            hits[outcome.point] = -math.inf
        tick.done()
    if np.isneginf(hits.max()):
        raise _all_failed(method, failed)
    i, j = grid.best(hits, range(len(grid.points)))
    pooled = _Pooled(judge, i)
    (final,) = train(method, settings.config, [task.view], [grid.hypers()[i]], pooled)
    tick.done()
    if final.failed is not None:
        raise _all_failed(method, [final.failed])
    return Chosen(
        head=final.head.at(settings.post_grid.points()[j]),
        accuracy=float(hits[i, j]) / sum(len(rows.x) for rows in held_out),
        failed=tuple(failed),
        watch=final.watch,
    )


def _all_failed(method: Method, failed: Sequence[str]) -> TrainingError:
    rate = " --set lr=1e-4" if "lr" in hyper_values(method.Hyper()) else ""
    return TrainingError(
        f"Training {method.name} gave no usable head: {failed[0]}. "
        f"Try smaller steps (e.g.{rate or ' a smaller learning rate'}), and `featcache verify`."
    )


class _Ticker:
    """Counts finished runs for the progress line."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done, self._total = 0, 0

    def of(self, runs: int) -> None:
        self._total += runs

    def done(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress("training", self._done, self._total)
