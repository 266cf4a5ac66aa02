"""All points of a method's grids, in one order, and which comes first among equals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float64, Num

from heads.contract import AnyMethod, Grid, TaskView, hyper_values, with_static, with_values
from heads.selection.settings import Settings
from heads.training.trainer import Judge, Outcome, train


class Walk:
    """All grid points, and which comes first among equals."""

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
        own = {n: v for n, v in point.items() if n not in self.static}
        return with_static(self.settings.config, point), with_values(self.settings.hyper, own)

    def train(
        self, method: AnyMethod, views: Sequence[TaskView], judge: Judge
    ) -> Iterator[Outcome]:
        """Train every task at every point, those that share a Config together."""
        together: dict[Any, tuple[list[int], list[Any]]] = {}
        for number, point in enumerate(self.points):
            config, hyper = self.at(point)
            numbers, hypers = together.setdefault(config, ([], []))
            numbers.append(number)
            hypers.append(hyper)
        for config, (numbers, hypers) in together.items():
            yield from train(method, config, views, hypers, judge, numbers=numbers)

    def best(self, hits: Num[np.ndarray, "g p"], points: Sequence[int]) -> tuple[int, int]:
        """Return (row of `hits`, post point): most hits, then the nearest, then the first."""
        distance = self.distance[list(points)]
        ties = np.where(hits == hits.max(), distance, np.inf)
        i, j = np.unravel_index(int(ties.argmin()), ties.shape)
        return int(i), int(j)


def distances(grid: Grid, default: Mapping[str, float]) -> Float64[np.ndarray, " p"]:
    """Sum over the axes how many values of the grid lie between each point and the default.

    A default between two values counts by where it lies, in logarithms if all are positive.
    """
    total = np.zeros(1)
    for name, values in grid.axes.items():
        axis, own = np.array(values, dtype=float), np.array([default[name]])
        if axis.min() > 0 and own[0] > 0:
            axis, own = np.log(axis), np.log(own)
        ranks = np.arange(len(axis))
        steps = np.interp(axis, np.sort(axis), ranks) - np.interp(own, np.sort(axis), ranks)
        total = np.add.outer(total, np.abs(steps)).ravel()
    return total.round(9)
