"""Metrics from the answers to single queries: top-1, macro F1 and balanced accuracy.

Classes without queries are left out of the two class means. These two are not means over queries,
so their intervals come from the jackknife (Tukey 1958): the
pseudo-value of a query is n times the measure less n-1 times the measure without that query. The
pseudo-values of top-1 are its correct answers, so all three are treated alike.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64

from heads.results import statistics
from heads.results.record import LISTS, IntervalOf, Metric, Predictions

NAMES = ("top1", "macro_f1", "balanced_accuracy")
TAIL = "tail_top1"
"""Expected tail accuracy: mean top-1 of the worst tenth of the streams."""


def top1(predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"]) -> float:
    """Return the fraction of queries answered correctly."""
    return float(np.mean(predicted == labels))


def fraction(
    holds: Bool[np.ndarray, "r n"], labels: Int[np.ndarray, "r n"]
) -> Float64[np.ndarray, " r"]:
    """Return in how many of its queries something holds, for every repetition.

    Args:
        holds: For each query.
        labels: -1 where a repetition has no further query.
    """
    is_query = labels >= 0
    return np.asarray((holds & is_query).sum(axis=1) / is_query.sum(axis=1))


def tail(values: Float64[np.ndarray, " r"]) -> float:
    """Return the mean of the lowest tenth, rounded up.

    Example:
        >>> tail(np.array([0.9, 0.5, 0.8, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.6]))
        0.55
    """
    return float(np.sort(values)[: -(-len(values) // 10)].mean())


def per_class_accuracy(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> Float64[np.ndarray, " c"]:
    """Return the accuracy within each class; NaN for a class without queries."""
    counted = Counts.of(predicted[None], labels[None], classes)
    return np.asarray(np.where(counted.labelled > 0, counted.accuracy, np.nan)[0])


def balanced_accuracy(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> float:
    """Return the mean of the per-class accuracies."""
    return float(Counts.of(predicted[None], labels[None], classes).balanced_accuracy[0])


def macro_f1(
    predicted: Int32[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], classes: int
) -> float:
    """Return the mean of 2 correct / (labelled + answered) over the classes with queries."""
    return float(Counts.of(predicted[None], labels[None], classes).macro_f1[0])


def evaluate(
    predictions: Predictions, classes: int, over: IntervalOf = "repetitions"
) -> dict[str, Metric]:
    """Compute every metric with the 95 % interval of its mean.

    The interval is over `episodes`, `batches` or `streams` by Student's t, else over `repetitions
    and queries`, which are crossed because all repetitions answer the same queries; with one
    repetition over `queries`. Streams have the mean of their worst tenth besides (`TAIL`).

    Args:
        predictions: Answers and labels.
        classes: Length of the class list.
        over: What the repetitions are: seeds (`repetitions`), or `episodes`, `batches`, `streams`.
    """
    counted = Counts.of(predictions.predicted, predictions.labels, classes)
    r, n = predictions.labels.shape
    measured = {name: getattr(counted, name) for name in NAMES}
    halves: dict[str, float | None] = dict.fromkeys(NAMES, None)
    said: IntervalOf = "none"
    if r > 1 and over in LISTS.values():
        said = over
        size = float((predictions.labels >= 0).sum())
        for name, values in measured.items():
            halves[name] = float(statistics.of_draws(values, size=size).half)
    elif n > 1 and over != "batches":
        said = "queries" if r == 1 else "repetitions and queries"
        for name, pseudo in counted.pseudo_values().items():
            size = float(n if name == "top1" else counted.class_size.mean())
            halves[name] = float(statistics.of_queries(pseudo, size=size).half)
    metrics = {
        name: Metric(
            mean=(mean := float(np.mean(values))),
            ci95=_inside(halves[name], mean),
            values=tuple(values.tolist()),
            interval=said,
        )
        for name, values in measured.items()
    }
    if over == "streams":
        values = metrics["top1"].values
        metrics[TAIL] = Metric(mean=tail(np.array(values)), ci95=None, values=values)
    return metrics


def _inside(half: float | None, mean: float) -> float | None:
    """Limit a half-width so that the interval stays within [0, 1]."""
    return None if half is None else min(half, max(mean, 1 - mean))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Answers of all repetitions, counted by class."""

    predicted: Int64[np.ndarray, "r n"]
    labels: Int64[np.ndarray, "r n"]
    is_correct: Bool[np.ndarray, "r n"]
    correct: Float64[np.ndarray, "r c"]
    labelled: Float64[np.ndarray, "r c"]
    answered: Float64[np.ndarray, "r c"]

    @classmethod
    def of(
        cls, predicted: Int[np.ndarray, "r n"], labels: Int[np.ndarray, "r n"], classes: int
    ) -> "Counts":
        """Count the answers of every repetition."""
        p, y = predicted.astype(np.int64), labels.astype(np.int64)
        is_query = y >= 0
        is_correct = (p == y) & is_query
        place = np.arange(len(y))[:, None] * classes

        def count(of: np.ndarray, those: np.ndarray) -> np.ndarray:
            cells = np.bincount((of + place)[those], minlength=len(y) * classes)
            return cells.reshape(len(y), classes).astype(float)

        return cls(
            predicted=p,
            labels=y,
            is_correct=is_correct,
            correct=count(y, is_correct),
            labelled=count(y, is_query),
            answered=count(p, is_query),
        )

    @property
    def classes_present(self) -> Float64[np.ndarray, "r 1"]:
        """Count the classes that have queries."""
        return np.asarray((self.labelled > 0).sum(axis=1, keepdims=True).astype(float))

    @property
    def accuracy(self) -> Float64[np.ndarray, "r c"]:
        """Return the accuracy within each class; 0 for a class without queries."""
        return np.asarray(self.correct / np.maximum(self.labelled, 1))

    @property
    def f1(self) -> Float64[np.ndarray, "r c"]:
        """Return the F1 of each class; 0 for a class without queries."""
        return np.asarray(2 * self.correct / np.maximum(self.labelled + self.answered, 1))

    @property
    def top1(self) -> Float64[np.ndarray, " r"]:
        """Return the fraction of correct answers."""
        return fraction(self.is_correct, self.labels)

    @property
    def macro_f1(self) -> Float64[np.ndarray, " r"]:
        """Return the mean F1 of the classes that have queries."""
        return np.asarray(self.f1.sum(axis=1) / self.classes_present[:, 0])

    @property
    def balanced_accuracy(self) -> Float64[np.ndarray, " r"]:
        """Return the mean accuracy of the classes that have queries."""
        return np.asarray(self.accuracy.sum(axis=1) / self.classes_present[:, 0])

    @property
    def class_size(self) -> Float64[np.ndarray, " r"]:
        """Return the effective number of queries of a class mean, with classes weighted equally."""
        inverse = np.divide(
            1.0, self.labelled, out=np.zeros_like(self.labelled), where=self.labelled > 0
        )
        return np.asarray(self.classes_present[:, 0] ** 2 / inverse.sum(axis=1))

    def pseudo_values(self) -> dict[str, Float64[np.ndarray, "r n"]]:
        """Return the pseudo-values of every query, centred at the measure; by name."""
        return {
            "top1": self.is_correct.astype(float),
            "macro_f1": self._centred(self.macro_f1, self._without(self.f1, self._changed_f1())),
            "balanced_accuracy": self._centred(
                self.balanced_accuracy,
                self._without(self.accuracy, (self._changed_accuracy(), None)),
            ),
        }

    def _centred(self, whole: np.ndarray, without: np.ndarray) -> np.ndarray:
        n = self.labels.shape[1]
        return np.asarray(
            whole[:, None] + (n - 1) * (without.mean(axis=1, keepdims=True) - without)
        )

    def _without(
        self, each: np.ndarray, changed: tuple[np.ndarray, np.ndarray | None]
    ) -> np.ndarray:
        """Return the class mean without each query, from the changed values of its classes.

        Args:
            each: The value of each class.
            changed: New value of the label's class, and of the answered class where that differs.
        """
        of_label, of_answer = changed
        # a class without its only query is left out of the mean
        only = self._at(self.labelled, self.labels) == 1
        total = each.sum(axis=1, keepdims=True) - self._at(each, self.labels)
        total = total + np.where(only, 0.0, of_label)
        if of_answer is not None:
            total += np.where(self.is_correct, 0.0, of_answer - self._at(each, self.predicted))
        return np.asarray(total / np.maximum(self.classes_present - only, 1))

    def _changed_accuracy(self) -> np.ndarray:
        correct = self._at(self.correct, self.labels)
        labelled = self._at(self.labelled, self.labels)
        return np.asarray((correct - self.is_correct) / np.maximum(labelled - 1, 1))

    def _changed_f1(self) -> tuple[np.ndarray, np.ndarray]:
        both = self.labelled + self.answered
        of_label = 2 * (self._at(self.correct, self.labels) - self.is_correct)
        of_label = of_label / np.maximum(self._at(both, self.labels) - 1 - self.is_correct, 1)
        of_answer = 2 * self._at(self.correct, self.predicted)
        return of_label, of_answer / np.maximum(self._at(both, self.predicted) - 1, 1)

    def _at(self, by_class: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.take_along_axis(by_class, of, axis=1)
