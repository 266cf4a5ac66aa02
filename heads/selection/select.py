"""Choosing hyper-parameters without using the queries.

    few-shot-val   min(K, 4) validation images a class, as CoOp (the default)
    k-shot-val     K validation images a class
    full-val       the whole validation split
    cv             cross-validation on the support, for data without validation images
    none           the defaults
    oracle         the queries themselves; marked in every table

A head is trained at every point of the train grid and evaluated at every point of the post grid.
Of points with equal validation accuracy the default wins, then the one nearest to it. The head
trained at the chosen point is used as it is. A grid with `refine` is then searched more finely
around its best value. A method with a scout scores its train grid without training
(`heads.selection.scouting`). The members of a method made of others are chosen one by one
(`heads.selection.members`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from featcache.errors import UnknownNameError, UsageError
from featcache.progress import Report
from featcache.wording import Argument
from heads.contract.method import AnyMethod
from heads.episode import Episode
from heads.selection.chosen import Chosen, all_failed
from heads.selection.cross_validation import cross_validate
from heads.selection.grid import GridSearch, bisect
from heads.selection.members import resolved, select_members
from heads.selection.names import SELECTIONS
from heads.selection.scouting import has_scout, select_by_scout
from heads.selection.settings import Settings
from heads.selection.validation import RunCounter, Validation, with_queries
from heads.training.trainer import Outcome, train


def has_choice(method: AnyMethod, settings: Settings, mode: str) -> bool:
    """Tell whether a selection can change anything for this method.

    Cross-validation chooses among grid points and between stages. It cannot say which step to keep
    (`keep="best-val"`), because the final training uses all rows.
    """
    if method.composition is not None:
        inside = resolved(method.composition, settings.config, settings.shots)
        validates = method.composition.validates(settings.config)
        return mode != "none" and (
            validates or any(has_choice(m, own, mode) for _, m, own in inside)
        )
    stages = method.stages(settings.config)
    keeps = mode != "cv" and any(s.keep == "best-val" for s in stages)
    return settings.choices > 1 or keeps or any(s.search for s in stages)


def select(
    method: AnyMethod,
    settings: Settings,
    tasks: Sequence[Episode],
    mode: str,
    *,
    progress: Report | None = None,
) -> list[Chosen]:
    """Train each task over the grid and keep the best head.

    Args:
        method: The method.
        settings: Its settings and grids.
        tasks: Episodes whose `val` holds the rows of the mode; for `oracle` the queries.
        mode: One of `SELECTIONS`.
        progress: Told of every finished run.

    Raises:
        UnknownNameError: If there is no such mode.
        TrainingError: If every grid point of a task failed.
    """
    if mode not in SELECTIONS:
        raise UnknownNameError("selection", mode, SELECTIONS)
    if method.composition is not None:

        def alone(member: AnyMethod, own: Settings, views: Sequence[Episode]) -> list[Chosen]:
            used = mode if has_choice(member, own, mode) else "none"
            return select(member, own, views, used, progress=progress)

        return select_members(method, settings, tasks, mode, alone)
    counter = RunCounter(progress)
    if mode == "none":
        return _defaults(method, settings, tasks, counter)
    if mode == "cv":
        return [cross_validate(method, settings, task, counter) for task in tasks]
    grid = GridSearch(settings)
    judge = Validation(settings, [with_queries(method, task, task.val) for task in tasks])
    if has_scout(method, grid):
        return [
            select_by_scout(method, grid, task, [task.view], [judge.rows(s)], counter)
            for s, task in enumerate(tasks)
        ]
    best = [_Best(grid) for _ in tasks]
    views = [task.view for task in tasks]
    counter.expect(len(tasks) * len(grid.points))
    for outcome in grid.train(method, views, judge):
        best[outcome.task].offer(outcome, judge.correct(outcome))
        counter.finish()
    chosen = [one.chosen(method, len(judge.rows(s))) for s, one in enumerate(best)]
    if not settings.train_grid.refine:
        return chosen
    both = zip(tasks, chosen, strict=True)
    return [_refine(method, grid, task, one, counter) for task, one in both]


def _defaults(
    method: AnyMethod, settings: Settings, tasks: Sequence[Episode], counter: RunCounter
) -> list[Chosen]:
    axes = [n for g in (settings.train_grid, settings.post_grid) for n in g.axes]
    if given := [n for n in axes if n in settings.given]:
        raise UsageError(
            f"Without validation nothing can choose among the values of {given[0]} "
            f"({settings.given[given[0]]}). Give one value, or let ",
            Argument("selection", "few-shot-val"),
            " (which needs val images) or ",
            Argument("selection", "cv"),
            " (two shots or more) choose.",
        )
    counter.expect(len(tasks))
    chosen = []
    views = [task.view for task in tasks]
    for outcome in train(method, settings.config, views, [settings.hyper]):
        if outcome.failed is not None:
            raise all_failed(method, [outcome.failed])
        chosen.append(Chosen(head=outcome.head, accuracy=None, watch=outcome.watch))
        counter.finish()
    return chosen


class _Best:
    """The best head of one task so far; other heads are not held, as they can be large."""

    def __init__(self, grid: GridSearch) -> None:
        self.grid = grid
        self.failed: list[str] = []
        self._best: tuple[tuple[float, float, int], Outcome, int] | None = None

    def offer(self, outcome: Outcome, correct: Tensor | None) -> None:
        if correct is None:
            self.failed.append(outcome.failed or "")
            return
        counts = correct.cpu().numpy()[None]
        _, j = self.grid.best(counts, [outcome.point])
        rank = (-float(counts[0, j]), self.grid.distance[outcome.point, j], outcome.point)
        if self._best is None or rank < self._best[0]:
            self._best = (rank, outcome, j)

    def chosen(self, method: AnyMethod, n: int) -> Chosen:
        if self._best is None:
            raise all_failed(method, self.failed)
        (minus_correct, _, _), outcome, j = self._best
        point = self.grid.settings.post_grid.points()[j]
        return Chosen(
            head=outcome.head.at(point),
            accuracy=-minus_correct / n,
            failed=tuple(self.failed),
            watch=outcome.watch,
            static=self.grid.static,
        )


def _refine(
    method: AnyMethod, grid: GridSearch, task: Episode, peak: Chosen, counter: RunCounter
) -> Chosen:
    """Search more finely around the best value of a grid with one axis."""
    judge = Validation(grid.settings, [with_queries(method, task, task.val)])
    tried: dict[float, tuple[Outcome, np.ndarray[Any, Any]]] = {}

    def count(value: float) -> float:
        counter.expect(1)
        config, hyper = grid.at({name: value})
        (outcome,) = train(method, config, [task.view], [hyper], judge)
        counter.finish()
        correct = judge.correct(outcome)
        if correct is None:
            return -1.0
        tried[value] = outcome, correct.cpu().numpy()
        return float(correct.max())

    (name,) = grid.settings.train_grid.axes
    value = bisect(peak.values[name], grid.settings.train_grid.refine, count)
    if value not in tried:  # both ends of the last bracket failed
        return peak
    outcome, correct = tried[value]
    return replace(
        peak,
        head=outcome.head.at(judge.pick(correct)),
        accuracy=float(correct.max()) / len(judge.rows(0)),
        watch=outcome.watch,
    )
