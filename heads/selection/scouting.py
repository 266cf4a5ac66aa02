"""Selection by a scout: a method's faster way to the logits of every point of its train grid.

A scout (`Method.scout`) computes logits for many points without training a head for each: one
factorisation, for example, serves all ridge penalties. Only the chosen point is trained.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView
from heads.episode import Episode
from heads.selection import scoring
from heads.selection.chosen import Chosen, all_failed
from heads.selection.grid import GridSearch, bisect
from heads.selection.validation import RunCounter
from heads.training.trainer import train


def has_scout(method: AnyMethod, grid: GridSearch) -> bool:
    """Tell whether a scout can score the grid: one Config for all points, one post point."""
    return method.scout is not None and not grid.static and len(grid.settings.post_grid) == 1


def select_by_scout(
    method: AnyMethod,
    grid: GridSearch,
    task: Episode,
    views: Sequence[TaskView],
    rows: Sequence[Rows],
    counter: RunCounter,
) -> Chosen:
    """Choose by the correct answers of one scout per view, summed, and train the chosen point.

    Args:
        method: A method with a scout.
        grid: Its train grid.
        task: The task; the chosen point is trained on its whole support.
        views: What the scouts learn from: the task itself, or its folds.
        rows: Labelled validation rows of each view.
        counter: Counts every point of every view, and the training at the end.
    """
    assert method.scout is not None
    scouts = [method.scout(view, grid.settings.config) for view in views]

    def count(points: Sequence[Mapping[str, float]]) -> Int64[np.ndarray, " g"]:
        hypers = [grid.at(point)[1] for point in points]
        counter.expect(len(hypers) * len(views))
        correct = np.zeros(len(hypers), dtype=np.int64)
        for scout, val in zip(scouts, rows, strict=True):
            correct += scoring.correct_by_scout(scout, hypers, val, counter.finish)
        return correct

    correct = count(grid.points)
    i, _ = grid.best(correct[:, None], range(len(grid.points)))
    point, most = grid.points[i], float(correct[i])
    if grid.settings.train_grid.refine:
        (name,) = point
        tried: dict[float, float] = {}

        def correct_at(value: float) -> float:
            tried[value] = float(count([{name: value}])[0])
            return tried[value]

        value = bisect(point[name], grid.settings.train_grid.refine, correct_at)
        point, most = {name: value}, tried[value]
    counter.expect(1)
    config, hyper = grid.at(point)
    (outcome,) = train(method, config, [task.view], [hyper])
    counter.finish()
    if outcome.failed is not None:
        raise all_failed(method, [outcome.failed])
    no_folds = len(views) == 1 and views[0] is task.view
    accuracy = most / sum(len(val) for val in rows)
    return Chosen(
        head=outcome.head,
        accuracy=outcome.head.accuracy(rows[0]) if no_folds else accuracy,
    )
