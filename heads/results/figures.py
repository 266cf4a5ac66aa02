"""What a record states about its answers, against what the answers say.

The answers are the source: figures and intervals of a table are counted from them, and a figure
that was stated otherwise was changed, or comes from a program that counts otherwise; such a run
stands in no table.
"""

import math
from dataclasses import replace

import numpy as np

from featcache.errors import ImportedFileError
from heads.results.metrics import evaluate
from heads.results.record import EPISODIC, IntervalOf, Metric, Predictions, Result

TOLERANCE = 1e-9
"""Sums in another order differ by less."""


def counted(result: Result, where: str) -> Result:
    """Return a record with figures counted from its answers.

    Args:
        result: As it was read; without answers it stays as it is.
        where: Names the file in messages.

    Raises:
        ImportedFileError: If a figure differs from what was stated.
    """
    kept = result.predictions
    if kept is None:
        return result
    measured = _measured(kept, result)
    for name, metric in measured.items():
        if name in result.metrics:
            _compare(result.metrics[name], metric, name, where)
    if result.zero_shot_top1 is not None and kept.zero_shot is not None:
        right = (kept.zero_shot == kept.labels).mean(axis=1)
        found = float(right.mean() if result.protocol == EPISODIC else right[0])
        _same(result.zero_shot_top1, found, "zero_shot_top1", where)
    return replace(result, metrics={**result.metrics, **measured})


def _measured(kept: Predictions, result: Result) -> dict[str, Metric]:
    over: IntervalOf = "episodes" if result.protocol == EPISODIC else "repetitions"
    classes = result.classes
    if classes > kept.labels.shape[1]:  # only those that occur matter, and any number may be stated
        there, at = np.unique(np.stack([kept.predicted, kept.labels]), return_inverse=True)
        predicted, labels = at.reshape(2, *kept.labels.shape).astype(np.int32)
        kept, classes = Predictions(predicted=predicted, labels=labels), len(there)
    return evaluate(kept, classes, over)


def _compare(stated: Metric, found: Metric, name: str, where: str) -> None:
    pairs = zip(stated.values, found.values, strict=True)
    for number, (one, other) in enumerate(pairs, start=1):
        _same(one, other, f"{name} of repetition {number}", where)
    _same(stated.mean, found.mean, f"mean {name}", where)


def _same(stated: float, found: float, what: str, where: str) -> None:
    if not math.isclose(stated, found, rel_tol=0.0, abs_tol=TOLERANCE):
        raise ImportedFileError(
            f"{where} states {what} as {stated:.6g}, and its answers give {found:.6g}; delete that "
            f"run and train it again."
        )
