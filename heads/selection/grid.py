"""Grid search: the points of a method's grids in one order, ties, and refinement of the best."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float64, Num

from heads.contract.method import AnyMethod
from heads.contract.rows import TaskView
from heads.contract.settings import Grid, hyper_values, with_static, with_values
from heads.selection.settings import Settings
from heads.training.trainer import Judge, Outcome, train


class GridSearch:
    """All points of the train and the post grid, and which of equally accurate ones wins."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.points = settings.train_grid.points()
        numbers = asdict(settings.config)
        default = hyper_values(settings.hyper) | {
            n: float(numbers[n]) for n in settings.train_grid.axes if n in numbers
        }
        self.static = tuple(n for n in settings.train_grid.axes if n in numbers)
        """Axes that are fields of Config."""
        train, post = (distances(g, default) for g in (settings.train_grid, settings.post_grid))
        self.distance = np.add.outer(train, post)
        """[train points, post points], in steps of the grids; 0 is the default."""

    def at(self, point: Mapping[str, float]) -> tuple[Any, Any]:
        """Return Config and Hyper of a point."""
        hyper = {n: v for n, v in point.items() if n not in self.static}
        return with_static(self.settings.config, point), with_values(self.settings.hyper, hyper)

    def train(
        self, method: AnyMethod, views: Sequence[TaskView], judge: Judge
    ) -> Iterator[Outcome]:
        """Train every task at every point; points with the same Config are trained together."""
        by_config: dict[Any, tuple[list[int], list[Any]]] = {}
        for number, point in enumerate(self.points):
            config, hyper = self.at(point)
            numbers, hypers = by_config.setdefault(config, ([], []))
            numbers.append(number)
            hypers.append(hyper)
        for config, (numbers, hypers) in by_config.items():
            yield from train(method, config, views, hypers, judge, numbers=numbers)

    def best(self, correct: Num[np.ndarray, "g p"], points: Sequence[int]) -> tuple[int, int]:
        """Choose the point with the most correct answers; ties go to the nearest, then the first.

        Args:
            correct: Correct answers at some train points and all post points.
            points: Indices of these train points.

        Returns:
            The row of `correct` and the index of the post point.
        """
        distance = self.distance[list(points)]
        ties = np.where(correct == correct.max(), distance, np.inf)
        i, j = np.unravel_index(int(ties.argmin()), ties.shape)
        return int(i), int(j)


def distances(grid: Grid, default: Mapping[str, float]) -> Float64[np.ndarray, " p"]:
    """Return the distance of each point to the default in grid steps, summed over the axes.

    A default between two values of an axis is interpolated, in logarithms if all are positive.
    """
    total = np.zeros(1)
    for name, values in grid.axes.items():
        axis, center = np.array(values, dtype=float), np.array([default[name]])
        if axis.min() > 0 and center[0] > 0:
            axis, center = np.log(axis), np.log(center)
        ranks = np.arange(len(axis))
        steps = np.interp(axis, np.sort(axis), ranks) - np.interp(center, np.sort(axis), ranks)
        total = np.add.outer(total, np.abs(steps)).ravel()
    return total.round(9)


def bisect(peak: float, rounds: int, correct: Callable[[float], float]) -> float:
    """Refine the best value of a grid by bisection within a decade on either side.

    Source: CoOp's released linear probe. In each round the ends of the bracket are compared and
    the half on the side of the better one is kept; the smaller end wins ties. The better end of
    the last round is returned.

    Args:
        peak: The best value of the grid, above 0.
        rounds: Number of comparisons; `correct` is called once more than that.
        correct: Counts correct validation answers at a value.
    """
    counts: dict[float, float] = {}

    def at(exponent: float) -> float:
        if exponent not in counts:
            counts[exponent] = correct(10**exponent)
        return counts[exponent]

    low, high = math.log10(peak) - 1, math.log10(peak) + 1
    best = low
    for _ in range(rounds):
        middle = (low + high) / 2
        if at(low) < at(high):
            best, low = high, middle
        else:
            best, high = low, middle
    return float(10**best)
