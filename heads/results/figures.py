"""What a record states about its answers, against what the answers say.

The answers are the source: a figure that differs from them was changed, or was made by a program
that counts otherwise, and must not stand in a table.
"""

import math

import numpy as np
from jaxtyping import Int32

from featcache.errors import ImportedFileError
from heads.results.metrics import balanced_accuracy, macro_f1, top1
from heads.results.record import EPISODIC, Predictions, Result

TOLERANCE = 1e-9
"""Sums in another order differ by less."""


def check(result: Result, where: str) -> None:
    """Compare every figure that follows from the answers with what the record states.

    Args:
        result: With its predictions.
        where: Names the file in messages.

    Raises:
        ImportedFileError: If one differs.
    """
    kept = result.predictions
    if kept is None:
        return
    for name, values in _measured(kept).items():
        metric = result.metrics.get(name)
        if metric is None:
            continue
        for number, (stated, counted) in enumerate(zip(metric.values, values, strict=True)):
            if not _same(stated, counted):
                raise _differs(where, f"{name} of repetition {number + 1}", stated, counted)
        if not _same(metric.mean, float(np.mean(values))):
            raise _differs(where, f"mean {name}", metric.mean, float(np.mean(values)))
    if result.zero_shot_top1 is not None and kept.zero_shot is not None:
        right = (kept.zero_shot == kept.labels).mean(axis=1)
        counted = float(right.mean() if result.protocol == EPISODIC else right[0])
        if not _same(result.zero_shot_top1, counted):
            raise _differs(where, "zero_shot_top1", result.zero_shot_top1, counted)


def _measured(kept: Predictions) -> dict[str, list[float]]:
    # only classes that occur matter to a mean over them; a stated number of classes could be huge
    predicted, labels, classes = _compact(kept.predicted, kept.labels)
    pairs = list(zip(predicted, labels, strict=True))
    return {
        "top1": [top1(p, y) for p, y in pairs],
        "macro_f1": [macro_f1(p, y, classes) for p, y in pairs],
        "balanced_accuracy": [balanced_accuracy(p, y, classes) for p, y in pairs],
    }


def _compact(
    predicted: Int32[np.ndarray, "r n"], labels: Int32[np.ndarray, "r n"]
) -> tuple[Int32[np.ndarray, "r n"], Int32[np.ndarray, "r n"], int]:
    there, at = np.unique(np.stack([predicted, labels]), return_inverse=True)
    at = at.reshape(2, *labels.shape).astype(np.int32)
    return at[0], at[1], len(there)


def _same(stated: float, counted: float) -> bool:
    return math.isclose(stated, counted, rel_tol=0, abs_tol=TOLERANCE)


def _differs(where: str, what: str, stated: float, counted: float) -> ImportedFileError:
    return ImportedFileError(
        f"{where} states {what} as {stated:.6g}, and its answers give {counted:.6g}; delete that "
        f"run and train it again."
    )
