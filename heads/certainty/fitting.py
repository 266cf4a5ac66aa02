"""Temperature and calibration of a trained head, from labelled rows that did not train it.

    by_rows     a temperature from some rows, scores from others; the head answers each once
    by_folds    where there are no such rows: the head is trained again without each fold of the
                support (K trainings at the chosen values), and the K heads are kept

Of folds, the temperature of a fold's head is fitted on the rows of the other folds, as their heads
answer them, so that no row scores itself. The hyper-parameters were chosen on the whole support
where the selection was `cv`: the guarantee of folds does not cover that choice.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import TaskError
from featcache.wording import Argument
from heads.certainty.calibration import Calibration, part_of
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView, find_kind
from heads.fitted import Fitted
from heads.ops.pooling import temperature
from heads.selection.refitting import refitted


def by_rows(
    fitted: Fitted, warm: Rows | None, rest: Rows | None
) -> tuple[float, Calibration | None]:
    """Return the temperature of a head and its calibration.

    Args:
        fitted: The head.
        warm: Labelled rows that did not train it; they may have selected it. None leaves the
            temperature at 1.
        rest: Labelled rows that neither trained nor selected it, and are not among `warm`; None for
            no calibration.
    """
    heat = 1.0 if warm is None else temperature(*_answered(fitted, warm))
    if rest is None:
        return heat, None
    return heat, Calibration(parts=(part_of(*_answered(fitted, rest), heat),))


def by_folds(fitted: Fitted, view: TaskView) -> tuple[float, Calibration]:
    """Return the temperature of a head and its calibration, from folds of its support.

    Args:
        fitted: The head, trained on the whole support.
        view: The task that it was trained on.

    Raises:
        TaskError: As `check_folds`.
        TrainingError: If a head could not be trained.
    """
    check_folds(fitted.method, fitted.config, view)
    kept = [(one.kept(), rows) for one, rows in refitted(fitted, view)]
    folds = [(one, *_answered(one, rows)) for one, rows in kept]
    parts = []
    for at, (one, logits, labels) in enumerate(folds):
        others = [(z, y) for other, (_, z, y) in enumerate(folds) if other != at]
        heat = _temperature(others)
        parts.append(part_of(logits, labels, heat, one))
    return _temperature([(z, y) for _, z, y in folds]), Calibration(parts=tuple(parts))


def check_folds(method: AnyMethod, config: Any, view: TaskView) -> None:
    """Refuse folds of a support that cannot calibrate a method.

    Raises:
        TaskError: If the method is made of others, no class has two images, or the support lacks
            what the method reads of the images that it answers.
    """
    labels = view.support.y[: len(view.support) - view.retrieved]
    lacking = [
        need.kind
        for need in method.needs(config)
        if need.role == "query"
        and need.kind != "global"
        and not need.optional
        and find_kind(view.support.kinds, need.key) is None
    ]
    if method.composition is not None:
        why = f"{method.name} is made of other methods, which have no folds in common"
    elif not len(labels) or int(torch.bincount(labels).max()) < 2:
        why = f"{method.name} was trained on no class with two labelled images"
    elif lacking:
        why = (
            f"{method.name} reads {lacking[0]} of the images it answers but not of its training "
            f"images"
        )
    else:
        return
    raise TaskError(
        f"{why}, so folds cannot calibrate it. Use ",
        Argument("calibrate_on", "auto"),
        " (validation images).",
    )


def _temperature(answered: list[tuple[Tensor, Tensor]]) -> float:
    logits, labels = (torch.cat(parts) for parts in zip(*answered, strict=True))
    return temperature(logits, labels)


def _answered(fitted: Fitted, rows: Rows) -> tuple[Float[Tensor, "n c"], Int64[Tensor, " n"]]:
    """Return logits and labels; where not finite, all classes are alike."""
    logits = fitted.logits(rows)
    usable = torch.isfinite(logits).all(dim=-1, keepdim=True)
    return torch.where(usable, logits, logits.new_zeros(())), rows.y
