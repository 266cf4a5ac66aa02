"""Validation rows as the trainer's judge, and the count of finished runs for the progress line."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Num
from torch import Tensor

from featcache.errors import TaskError
from featcache.progress import Report
from featcache.wording import Argument
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows
from heads.contract.settings import Grid
from heads.episode import Episode
from heads.fitted import Fitted
from heads.selection import scoring
from heads.selection.grid import GridSearch
from heads.selection.settings import Settings
from heads.training.trainer import Outcome


class Validation:
    """The trainer's `Judge`: counts correct answers on the validation rows of each task."""

    def __init__(self, settings: Settings, val: Sequence[Rows | None]) -> None:
        self.settings, self.val = settings, val
        self.post = GridSearch(replace(settings, train_grid=Grid()))
        self.pooled: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        """(point, stage) -> correct answers on the post grid, summed over tasks, for `cv`."""

    def rows(self, task: int) -> Rows:
        """Return the validation rows of a task.

        Raises:
            TaskError: If it has none.
        """
        rows = self.val[task]
        if rows is None:
            raise TaskError(
                "There are no validation images to select on. Use ",
                Argument("selection", "cv"),
                " (folds of the support) or ",
                Argument("selection", "none"),
                " (the defaults).",
            )
        return rows

    def correct(self, outcome: Outcome) -> Tensor | None:
        """Count the correct answers of a run at every post point; None if it cannot be used."""
        if outcome.failed is not None:
            return None
        return scoring.correct_on_grid(
            outcome.head, self.rows(outcome.task), self.settings.post_grid
        )

    def accuracy(self, task: int, head: Fitted) -> float | None:
        """Return the validation accuracy; see `Judge`."""
        return head.accuracy(self.rows(task))

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        """Choose on the post grid after a stage; see `Judge`."""
        grid = self.settings.post_grid
        correct = scoring.correct_on_grid(head, self.rows(task), grid).cpu().numpy()
        self.pooled[point, stage] = self.pooled.get((point, stage), 0) + correct
        return self.pick(correct)

    def pick(self, correct: Num[np.ndarray, " p"]) -> dict[str, float]:
        """Return the best point of the post grid."""
        return self.settings.post_grid.points()[self.post.best(correct[None], [0])[1]]


def with_queries(method: AnyMethod, task: Episode, rows: Rows | None) -> Rows | None:
    """Return validation rows as the method answers them.

    A transductive method answers rows together with the queries, so these are added without
    labels, unless the rows are the queries themselves (`oracle`).
    """
    if rows is None or not method.transductive or rows is task.query:
        return rows
    return replace(rows, among=replace(task.query, labels=None, weights=None))


class RunCounter:
    """Counts finished runs for the progress line."""

    def __init__(self, progress: Report | None) -> None:
        self._progress = progress
        self._done, self._total = 0, 0

    def expect(self, runs: int) -> None:
        """Raise the total."""
        self._total += runs

    def finish(self) -> None:
        """Report one more finished run."""
        self._done += 1
        if self._progress is not None:
            self._progress("training", self._done, self._total)
