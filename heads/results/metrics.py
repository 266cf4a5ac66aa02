"""From per-query answers to measures: top-1, macro F1 and balanced accuracy, per repetition.

A class without a query row says nothing about the method; it is left out of the two class means.
"""

import numpy as np
from jaxtyping import Float64, Int32

from heads.results.record import IntervalOf, Metric, Predictions
from heads.results.statistics import bootstrap_half_width, t_half_width, wilson

NAMES = ("top1", "macro_f1", "balanced_accuracy")


def top1(predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"]) -> float:
    """Return the fraction of queries answered rightly."""
    return float(np.mean(predicted == labels))


def per_class_accuracy(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> Float64[np.ndarray, " c"]:
    """Return the accuracy within each class; NaN for a class without queries."""
    hits, truly, _ = _counts(predicted, labels, classes)
    accuracy = np.full(classes, np.nan)
    np.divide(hits, truly, out=accuracy, where=truly > 0)
    return accuracy


def balanced_accuracy(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> float:
    """Return the mean of the per-class accuracies."""
    return float(np.nanmean(per_class_accuracy(predicted, labels, classes)))


def macro_f1(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> float:
    """Return the mean of 2 hits / (truly + answered) over the classes with queries."""
    hits, truly, answered = _counts(predicted, labels, classes)
    there = truly > 0
    return float(np.mean(2 * hits[there] / (truly[there] + answered[there])))


def evaluate(
    predictions: Predictions, classes: int, over: IntervalOf = "repetitions"
) -> dict[str, Metric]:
    """Measure every repetition and put an interval to each mean.

    Two repetitions or more: Student's t over repetitions. One: bootstrap over its queries.

    Args:
        predictions: Answers and labels.
        classes: Length of the class list.
        over: What the repetitions are called.
    """
    pairs = list(zip(predictions.predicted, predictions.labels, strict=True))
    measured = {
        "top1": [top1(p, y) for p, y in pairs],
        "macro_f1": [macro_f1(p, y, classes) for p, y in pairs],
        "balanced_accuracy": [balanced_accuracy(p, y, classes) for p, y in pairs],
    }
    if len(pairs) > 1:
        return {
            name: Metric(
                mean=float(np.mean(values)),
                ci95=t_half_width(values),
                values=tuple(values),
                interval=over,
            )
            for name, values in measured.items()
        }
    widths = _query_intervals(*pairs[0], classes)
    return {
        name: Metric(
            mean=values[0],
            ci95=widths[name],
            values=tuple(values),
            interval="none" if widths[name] is None else "queries",
        )
        for name, values in measured.items()
    }


def _query_intervals(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> dict[str, float | None]:
    """Resample queries with replacement; one draw of weights serves all three measures."""
    n = len(labels)
    if n < 2:
        return dict.fromkeys(NAMES, None)
    hit = predicted == labels
    if hit.all() or not hit.any():  # no resample differs; that is not the same as being sure
        low, high = wilson(int(hit.sum()), n)
        return {**dict.fromkeys(NAMES, None), "top1": high - low}

    def measures(weight: Float64[np.ndarray, " n"]) -> tuple[float, float, float]:
        hits = np.bincount(labels, weight * hit, classes)
        truly = np.bincount(labels, weight, classes)
        answered = np.bincount(predicted, weight, classes)
        there = truly > 0
        return (
            float(hits.sum() / n),
            float(np.mean(2 * hits[there] / (truly[there] + answered[there]))),
            float(np.mean(hits[there] / truly[there])),
        )

    return dict(zip(NAMES, bootstrap_half_width(measures, n), strict=True))


def _counts(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, " c"], Float64[np.ndarray, " c"]]:
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    truly = np.bincount(labels, minlength=classes)
    answered = np.bincount(predicted, minlength=classes)
    return hits.astype(float), truly.astype(float), answered.astype(float)
