"""Choosing hyper-parameters without a look at the query.

    few-shot-val   min(K, 4) validation images a class, as CoOp (the default)
    k-shot-val     K validation images a class
    full-val       the whole validation split
    cv             pooled folds of the support, for data without validation
    none           the defaults
    oracle         the query itself; marked in every table

The train grid is walked by training, the post grid by combining anew. Of points that are equally
right on validation the default wins, then the one nearest to it. The head trained at the chosen
point is used as it is. A grid that says so is refined around its best value. Where a method has a
scout, that one looks at the train grid, and only the chosen point is trained.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int64, Num
from torch import Tensor

from featcache.errors import TaskError, TrainingError, UnknownNameError, UsageError
from featcache.wording import Argument, Setting
from heads.contract import (
    AnyMethod,
    Grid,
    Rows,
    TaskView,
    hyper_values,
)
from heads.episode import Episode
from heads.fitted import Fitted
from heads.selection import scoring
from heads.selection.folds import check_held_out, folds
from heads.selection.grid import Walk
from heads.selection.halving import halve
from heads.selection.names import SELECTIONS
from heads.selection.settings import Settings
from heads.training.trainer import Outcome, train

MODES = SELECTIONS
Progress = Callable[[str, int, int], None]
"""Called as (what is being done, done so far, of how many)."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The head of one task, and how it was chosen."""

    head: Fitted
    accuracy: float | None
    """On validation, in [0, 1]; None where nothing was validated."""
    failed: tuple[str, ...] = ()
    """Grid points that could not be used, and why."""
    watch: dict[str, list[float]] = field(default_factory=dict)

    static: tuple[str, ...] = ()
    """Fields of Config that were chosen too."""

    @property
    def values(self) -> dict[str, float]:
        """Return the hyper-parameters of the head."""
        also = {name: getattr(self.head.config, name) for name in self.static}
        return hyper_values(self.head.hyper) | also


def has_choice(method: AnyMethod, settings: Settings, mode: str) -> bool:
    """Tell whether a selection can change anything for this method.

    Folds choose among points and between stages; which step to keep they cannot tell, because the
    last training is on all rows.
    """
    stages = method.stages(settings.config)
    keeps = mode != "cv" and any(s.keep == "best-val" for s in stages)
    return settings.choices > 1 or keeps or any(s.search for s in stages)


def select(
    method: AnyMethod,
    settings: Settings,
    tasks: Sequence[Episode],
    mode: str,
    *,
    progress: Progress | None = None,
) -> list[Chosen]:
    """Train each task over the grid and keep the best head.

    Args:
        method: The method.
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
    grid = Walk(settings)
    judge = _Validation(settings, [_judged(method, task, task.val) for task in tasks])
    if _has_scout(method, grid):
        return [
            _scouted(method, grid, task, [task.view], [judge.rows(s)], tick)
            for s, task in enumerate(tasks)
        ]
    boards = [_Board(grid) for _ in tasks]
    views = [task.view for task in tasks]
    tick.of(len(tasks) * len(grid.points))
    for outcome in grid.train(method, views, judge):
        boards[outcome.task].offer(outcome, judge.hits(outcome))
        tick.done()
    chosen = [board.chosen(method, len(judge.rows(s))) for s, board in enumerate(boards)]
    if not settings.train_grid.refine:
        return chosen
    return [_refine(method, grid, task, one, tick) for task, one in zip(tasks, chosen, strict=True)]


def _defaults(
    method: AnyMethod, settings: Settings, tasks: Sequence[Episode], tick: "_Ticker"
) -> list[Chosen]:
    own = [n for g in (settings.train_grid, settings.post_grid) for n in g.axes]
    if given := [n for n in own if n in settings.given]:
        raise UsageError(
            f"Without validation nothing can choose among the values of {given[0]} "
            f"({settings.given[given[0]]}). Give one value, or let ",
            Argument("selection", "few-shot-val"),
            " (which needs val images) or cv (two shots or more) choose.",
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


class _Board:
    """The best head of one task so far; the others are let go."""

    def __init__(self, grid: Walk) -> None:
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

    def chosen(self, method: AnyMethod, n: int) -> Chosen:
        if self._best is None:
            raise _all_failed(method, self.failed)
        (minus_hits, _, _), outcome, j = self._best
        point = self.grid.settings.post_grid.points()[j]
        return Chosen(
            head=outcome.head.at(point),
            accuracy=-minus_hits / n,
            failed=tuple(self.failed),
            watch=outcome.watch,
            static=self.grid.static,
        )


class _Validation:
    """Answers the trainer from each task's validation rows."""

    def __init__(self, settings: Settings, val: Sequence[Rows | None]) -> None:
        self.settings, self.val = settings, val
        self.post = Walk(replace(settings, train_grid=Grid()))
        self.seen: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        """(point, stage) -> hits on the post grid, summed over tasks; `cv` pools them."""

    def rows(self, task: int) -> Rows:
        rows = self.val[task]
        if rows is None:
            raise TaskError(
                "There are no validation images to select on. Use ",
                Argument("selection", "cv"),
                " (folds of the support) or none (the defaults).",
            )
        return rows

    def hits(self, outcome: Outcome) -> Tensor | None:
        """Count right answers of a run at every post point; None if it cannot be used."""
        if outcome.failed is not None:
            return None
        return scoring.correct_on_grid(
            outcome.head, self.rows(outcome.task), self.settings.post_grid
        )

    def accuracy(self, task: int, head: Fitted) -> float | None:
        return head.accuracy(self.rows(task))

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        grid = self.settings.post_grid
        hits = scoring.correct_on_grid(head, self.rows(task), grid).cpu().numpy()
        self.seen[point, stage] = self.seen.get((point, stage), 0) + hits
        return self.pick(hits)

    def pick(self, hits: Num[np.ndarray, " p"]) -> dict[str, float]:
        return self.settings.post_grid.points()[self.post.best(hits[None], [0])[1]]


def _judged(method: AnyMethod, task: Episode, rows: Rows | None) -> Rows | None:
    """Return validation rows, for a transductive method with the queries that it answers."""
    if rows is None or not method.transductive or rows is task.query:
        return rows
    return replace(rows, among=replace(task.query, labels=None, weights=None))


def _has_scout(method: AnyMethod, grid: Walk) -> bool:
    """Tell whether a scout answers for every point: it knows one Config, and no post grid."""
    return method.scout is not None and not grid.static and len(grid.settings.post_grid) == 1


def _scouted(
    method: AnyMethod,
    grid: Walk,
    task: Episode,
    views: Sequence[TaskView],
    rows: Sequence[Rows],
    tick: "_Ticker",
) -> Chosen:
    """Choose by right answers that scouts count, together on all views; train the chosen point."""
    assert method.scout is not None
    scouts = [method.scout(view, grid.settings.config) for view in views]

    def right(points: Sequence[Mapping[str, float]]) -> Int64[np.ndarray, " g"]:
        hypers = [grid.at(point)[1] for point in points]
        tick.of(len(hypers) * len(views))
        hits = np.zeros(len(hypers), dtype=np.int64)
        for scout, judged in zip(scouts, rows, strict=True):
            hits += scoring.correct_by_scout(scout, hypers, judged, tick.done)
        return hits

    hits = right(grid.points)
    i, _ = grid.best(hits[:, None], range(len(grid.points)))
    point, most = grid.points[i], float(hits[i])
    if grid.settings.train_grid.refine:
        (name,) = point
        found: dict[float, float] = {}

        def at(value: float) -> float:
            found[value] = float(right([{name: value}])[0])
            return found[value]

        value = halve(point[name], grid.settings.train_grid.refine, at)
        point, most = {name: value}, found[value]
    tick.of(1)
    config, hyper = grid.at(point)
    (outcome,) = train(method, config, [task.view], [hyper])
    tick.done()
    if outcome.failed is not None:
        raise _all_failed(method, [outcome.failed])
    is_whole = len(views) == 1 and views[0] is task.view
    accuracy = most / sum(len(judged) for judged in rows)
    return Chosen(
        head=outcome.head,
        accuracy=outcome.head.accuracy(rows[0]) if is_whole else accuracy,
    )


def _refine(method: AnyMethod, grid: Walk, task: Episode, peak: Chosen, tick: "_Ticker") -> Chosen:
    """Train on around the best value of a task's one-axis grid."""
    judge = _Validation(grid.settings, [_judged(method, task, task.val)])
    tried: dict[float, tuple[Outcome, np.ndarray[Any, Any]]] = {}

    def right(value: float) -> float:
        tick.of(1)
        config, hyper = grid.at({name: value})
        (outcome,) = train(method, config, [task.view], [hyper], judge)
        tick.done()
        hits = judge.hits(outcome)
        if hits is None:
            return -1.0
        tried[value] = outcome, hits.cpu().numpy()
        return float(hits.max())

    (name,) = grid.settings.train_grid.axes
    value = halve(peak.values[name], grid.settings.train_grid.refine, right)
    if value not in tried:  # both ends of the last bracket failed
        return peak
    outcome, hits = tried[value]
    return replace(
        peak,
        head=outcome.head.at(judge.pick(hits)),
        accuracy=float(hits.max()) / len(judge.rows(0)),
        watch=outcome.watch,
    )


class _Pooled:
    """Answers the final training of `cv`: what the folds chose together, no validation."""

    def __init__(self, folds: _Validation, point: int) -> None:
        self.folds, self.point = folds, point

    def accuracy(self, task: int, head: Fitted) -> float | None:
        return None

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        return self.folds.pick(self.folds.seen[self.point, stage])


def _cross_validate(
    method: AnyMethod, settings: Settings, task: Episode, tick: "_Ticker"
) -> Chosen:
    """Pool the right answers of all folds, choose, then train once on the whole support."""
    grid = Walk(settings)
    check_held_out(method, settings.config, task.view.support)
    views, held_out = folds(task.view)
    if _has_scout(method, grid):
        return _scouted(method, grid, task, views, held_out, tick)
    judge = _Validation(settings, [_judged(method, task, rows) for rows in held_out])
    tick.of(len(views) * len(grid.points) + 1)
    hits = np.zeros(grid.distance.shape)
    failed: list[str] = []
    for outcome in grid.train(method, views, judge):
        if (counts := judge.hits(outcome)) is not None:
            hits[outcome.point] += counts.cpu().numpy()
        else:
            failed.append(outcome.failed or "")
            hits[outcome.point] = -math.inf
        tick.done()
    if np.isneginf(hits.max()):
        raise _all_failed(method, failed)
    i, j = grid.best(hits, range(len(grid.points)))
    accuracy, point = float(hits[i, j]), grid.points[i]
    if settings.train_grid.refine:
        accuracy, point, j = _refine_pooled(method, grid, views, judge, point, tick)
    config, hyper = grid.at(point)
    (final,) = train(method, config, [task.view], [hyper], _Pooled(judge, i))
    tick.done()
    if final.failed is not None:
        raise _all_failed(method, [final.failed])
    return Chosen(
        head=final.head.at(settings.post_grid.points()[j]),
        accuracy=accuracy / sum(len(rows) for rows in held_out),
        failed=tuple(failed),
        watch=final.watch,
        static=grid.static,
    )


def _refine_pooled(
    method: AnyMethod,
    grid: Walk,
    views: Sequence[TaskView],
    judge: _Validation,
    peak: Mapping[str, float],
    tick: "_Ticker",
) -> tuple[float, dict[str, float], int]:
    """Refine on all folds together; return right answers, train point and post point."""
    ((name, start),) = peak.items()
    pooled: dict[float, np.ndarray[Any, Any]] = {}

    def right(value: float) -> float:
        config, hyper = grid.at({name: value})
        tick.of(1)
        each = [judge.hits(one) for one in train(method, config, views, [hyper], judge)]
        tick.done()
        usable = [hits.cpu().numpy() for hits in each if hits is not None]
        lost = np.full(len(grid.settings.post_grid), -1)
        pooled[value] = np.sum(usable, axis=0) if len(usable) == len(each) else lost
        return float(pooled[value].max())

    value = halve(start, grid.settings.train_grid.refine, right)
    j = judge.post.best(pooled[value][None], [0])[1]
    return float(pooled[value][j]), {name: value}, j


def _all_failed(method: AnyMethod, failed: Sequence[str]) -> TrainingError:
    has_rate = "lr" in hyper_values(method.hyper())
    return TrainingError(
        f"Training {method.name} gave no usable head: {failed[0]}. Try smaller steps (e.g. ",
        Setting("lr", "1e-4") if has_rate else "a smaller learning rate",
        "), and `featcache verify`.",
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
