"""Cross-validation: correct answers pooled over folds choose, then one head is trained on all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heads.contract.method import AnyMethod
from heads.contract.rows import TaskView
from heads.episode import Episode
from heads.fitted import Fitted
from heads.selection.chosen import Chosen, all_failed
from heads.selection.folds import check_held_out, folds
from heads.selection.grid import GridSearch, bisect
from heads.selection.scouting import has_scout, select_by_scout
from heads.selection.settings import Settings
from heads.selection.validation import RunCounter, Validation, with_queries
from heads.training.trainer import train


class _Pooled:
    """The `Judge` of the final training: repeats what the folds chose together."""

    def __init__(self, folds: Validation, point: int) -> None:
        self.folds, self.point = folds, point

    def accuracy(self, task: int, head: Fitted) -> float | None:
        return None

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        return self.folds.pick(self.folds.pooled[self.point, stage])


def cross_validate(
    method: AnyMethod, settings: Settings, task: Episode, counter: RunCounter
) -> Chosen:
    """Pool the correct answers of all folds, choose, then train once on the whole support.

    Raises:
        TaskError: If no class has two images, or the support lacks what queries are answered by.
        TrainingError: If every grid point, or the final training, failed.
    """
    grid = GridSearch(settings)
    check_held_out(method, settings.config, task.view.support)
    views, held_out = folds(task.view)
    if has_scout(method, grid):
        return select_by_scout(method, grid, task, views, held_out, counter)
    judge = Validation(settings, [with_queries(method, task, rows) for rows in held_out])
    counter.expect(len(views) * len(grid.points) + 1)
    correct = np.zeros(grid.distance.shape)
    failed: list[str] = []
    for outcome in grid.train(method, views, judge):
        if (counts := judge.correct(outcome)) is not None:
            correct[outcome.point] += counts.cpu().numpy()
        else:
            failed.append(outcome.failed or "")
            correct[outcome.point] = -math.inf
        counter.finish()
    if np.isneginf(correct.max()):
        raise all_failed(method, failed)
    i, j = grid.best(correct, range(len(grid.points)))
    most, point = float(correct[i, j]), grid.points[i]
    if settings.train_grid.refine:
        most, point, j = _refine(method, grid, views, judge, point, counter)
    config, hyper = grid.at(point)
    (final,) = train(method, config, [task.view], [hyper], _Pooled(judge, i))
    counter.finish()
    if final.failed is not None:
        raise all_failed(method, [final.failed])
    return Chosen(
        head=final.head.at(settings.post_grid.points()[j]),
        accuracy=most / sum(len(rows) for rows in held_out),
        failed=tuple(failed),
        watch=final.watch,
        static=grid.static,
    )


def _refine(
    method: AnyMethod,
    grid: GridSearch,
    views: Sequence[TaskView],
    judge: Validation,
    peak: Mapping[str, float],
    counter: RunCounter,
) -> tuple[float, dict[str, float], int]:
    """Refine on all folds together; return correct answers, train point and post point."""
    ((name, start),) = peak.items()
    pooled: dict[float, np.ndarray[Any, Any]] = {}

    def count(value: float) -> float:
        config, hyper = grid.at({name: value})
        counter.expect(1)
        each = [judge.correct(run) for run in train(method, config, views, [hyper], judge)]
        counter.finish()
        usable = [correct.cpu().numpy() for correct in each if correct is not None]
        failed = np.full(len(grid.settings.post_grid), -1)
        pooled[value] = np.sum(usable, axis=0) if len(usable) == len(each) else failed
        return float(pooled[value].max())

    value = bisect(start, grid.settings.train_grid.refine, count)
    j = judge.post.best(pooled[value][None], [0])[1]
    return float(pooled[value][j]), {name: value}, j
