"""Training a chosen head again without each fold of the support: answers to rows it did not see."""

from heads.contract.rows import Rows, TaskView
from heads.contract.settings import hyper_values
from heads.fitted import Fitted
from heads.selection.chosen import all_failed
from heads.selection.folds import folds
from heads.training.trainer import train


def refitted(head: Fitted, view: TaskView) -> list[tuple[Fitted, Rows]]:
    """Train at the values of a head without each fold, and return it with the rows of the fold.

    Args:
        head: A head that was trained on the whole support.
        view: The task it was trained on.

    Raises:
        TaskError: If no class has two rows.
        TrainingError: If one could not be trained.
    """
    views, held_out = folds(view)
    heads: dict[int, Fitted] = {}
    for run in train(head.method, head.config, views, [head.hyper], _Repeat(head)):
        if run.failed is not None:
            raise all_failed(head.method, [run.failed])
        heads[run.task] = run.head
    return [(heads[at], rows) for at, rows in enumerate(held_out)]


class _Repeat:
    """The `Judge` of the folds: repeats what was chosen before."""

    def __init__(self, head: Fitted) -> None:
        self._chosen = {name: hyper_values(head.hyper)[name] for name in head.method.post_grid.axes}

    def accuracy(self, task: int, head: Fitted) -> float | None:
        return None

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        return self._chosen
