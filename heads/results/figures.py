"""Checking the figures of a record against its answers.

Figures and intervals of a table are computed from the answers. A stated figure that differs was
changed, or comes from a program that computes it differently; such a run is left out of tables.
"""

import math
from dataclasses import replace

import numpy as np

from featcache.errors import ImportedFileError
from heads.results.metrics import evaluate, fraction
from heads.results.record import LISTS, Metric, Predictions, Result

TOLERANCE = 1e-9
"""Largest difference due to the order of summation."""


def counted(result: Result, where: str) -> Result:
    """Return a record with figures computed from its answers.

    Args:
        result: The record as it was read; without answers it is returned unchanged.
        where: Name of the file in messages.

    Raises:
        ImportedFileError: If a figure differs from what was stated.
    """
    answers = result.predictions
    if answers is None:
        return result
    measured = _measured(answers, result)
    for name, metric in measured.items():
        if name in result.metrics:
            _compare(result.metrics[name], metric, name, where)
    if result.zero_shot_top1 is not None and answers.zero_shot is not None:
        correct = fraction(answers.zero_shot == answers.labels, answers.labels)
        computed = float(correct.mean() if result.protocol in LISTS else correct[0])
        _same(result.zero_shot_top1, computed, "zero_shot_top1", where)
    return replace(result, metrics={**result.metrics, **measured})


def _measured(answers: Predictions, result: Result) -> dict[str, Metric]:
    over = LISTS.get(result.protocol, "repetitions")
    classes = result.classes
    if classes > answers.labels.shape[1]:  # a record may state any number: count those that occur
        occurring, at = np.unique(
            np.stack([answers.predicted, answers.labels]), return_inverse=True
        )
        first = int(occurring[0] < 0)  # -1 is no class
        predicted, labels = (at - first).reshape(2, *answers.labels.shape).astype(np.int32)
        answers = Predictions(predicted=predicted, labels=labels)
        classes = len(occurring) - first
    return evaluate(answers, classes, over)


def _compare(stated: Metric, computed: Metric, name: str, where: str) -> None:
    pairs = zip(stated.values, computed.values, strict=True)
    for number, (one, other) in enumerate(pairs, start=1):
        _same(one, other, f"{name} of repetition {number}", where)
    _same(stated.mean, computed.mean, f"mean {name}", where)


def _same(stated: float, computed: float, what: str, where: str) -> None:
    if not math.isclose(stated, computed, rel_tol=0.0, abs_tol=TOLERANCE):
        raise ImportedFileError(
            f"{where} states {what} as {stated:.6g}, and its answers give {computed:.6g}; delete "
            f"that run and train it again."
        )
