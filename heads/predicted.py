"""What a head said of images, one by one, and how often it agreed with their labels."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featcache.counts import counted
from heads.results.statistics import of_draws

SHOWN = 5
"""Names of unknown classes that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A class that an image may be of."""

    label: int
    """Position in the classes of the head."""
    name: str
    probability: float
    """In [0, 1]; those of all classes sum to 1."""

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return {"class": self.name, "label": self.label, "probability": self.probability}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is decided of one image from its logits."""

    candidates: tuple[Candidate, ...]
    """As those of `Prediction`; empty where a logit is NaN or no logit is finite."""
    set: tuple[Candidate, ...] | None = None
    rejected: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer for one image."""

    id: str
    """Name of the image: its path as it was given, else e.g. images[0]."""
    candidates: tuple[Candidate, ...] = ()
    """The best classes, best first; empty where the image could not be used."""
    set: tuple[Candidate, ...] | None = None
    """The classes in its prediction set, best first; None where not asked for, or not usable."""
    rejected: bool | None = None
    """Whether it looks like no class of the head; None where not asked for, or not usable."""
    label: str | None = None
    """Name of its class according to the source; None where that says nothing."""
    problem: str = ""
    """Why the image could not be used, as a predicate: "is empty"; empty where it could."""

    @property
    def name(self) -> str:
        """Name of the predicted class; empty where the image could not be used."""
        return self.candidates[0].name if self.candidates else ""

    def to_json(self) -> dict[str, Any]:
        """Return one plain object; `set` and `rejected` are in it where they are known."""
        record: dict[str, Any] = {
            "image": self.id,
            "candidates": [c.to_json() for c in self.candidates],
            "label": self.label,
            "problem": self.problem,
        }
        if self.set is not None:
            record["set"] = [c.to_json() for c in self.set]
        if self.rejected is not None:
            record["rejected"] = self.rejected
        return record


class ClassNames:
    """Names of the classes of a head, to find the class that a label means.

    A label is the name of a class, in other case or with other punctuation too (`red-fox` is
    `Red Fox`), if that leaves one class only.

    Example:
        >>> names = ClassNames(["Red Fox", "C", "C++"])
        >>> names.find("red_fox"), names.find("C++"), names.find("fox")
        (0, 2, None)
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = _single(names)
        self._alike = _single([_plain(name) for name in names])

    def find(self, label: str) -> int | None:
        """Return the class that a label means; None if it means none or several."""
        found = self._exact.get(label)
        return self._alike.get(_plain(label)) if found is None else found


def _single(names: Sequence[str]) -> dict[str, int]:
    """Return name -> position of the names that occur once."""
    times = Counter(names)
    return {name: i for i, name in enumerate(names) if times[name] == 1}


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\W_]+", name.casefold())).strip()


@dataclass(slots=True)
class Tally:
    """Counts of predictions, and of those that agree with the labels of the source.

    An accuracy is stated only if every label means one class of the head: the share among the
    others would not be that of the task.
    """

    classes: Sequence[str]
    """Names of the classes of the head; they may repeat."""
    answered: int = 0
    unusable: int = 0
    """Images that could not be used."""
    correct: int = 0
    labelled: int = 0
    """Answered images whose label means a class of the head."""
    present: set[int] = field(default_factory=set)
    """Classes that the label of an answered image means."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Label that means no class of the head, or several -> answered images."""
    _names: ClassNames = field(init=False)

    def __post_init__(self) -> None:
        """Look at the names."""
        self._names = ClassNames(self.classes)

    def add(self, prediction: Prediction) -> None:
        """Count one prediction."""
        if prediction.problem:
            self.unusable += 1
            return
        self.answered += 1
        if prediction.label is None:
            return
        label = self._names.find(prediction.label)
        if label is None:
            self.unknown[prediction.label] += 1
            return
        self.labelled += 1
        self.present.add(label)
        self.correct += prediction.candidates[0].label == label

    @property
    def total(self) -> int:
        """Number of images."""
        return self.answered + self.unusable

    def sentence(self) -> str:
        """Say how accurate the answers are, or why that cannot be said; empty without labels."""
        if self.unknown:
            names = ", ".join(repr(name) for name, _ in self.unknown.most_common(SHOWN))
            more = ", ..." if len(self.unknown) > SHOWN else ""
            which = counted(len(self.unknown), "label or folder", "labels or folders")
            return (
                f"No accuracy: {which}, of {counted(self.unknown.total(), 'image')}, mean no class "
                f"of the head: {names}{more}."
            )
        if not self.labelled:
            return ""
        text = f"top-1 {100 * self.correct / self.labelled:.1f} %"
        if self.labelled > 1:
            hits = np.repeat([1.0, 0.0], [self.correct, self.labelled - self.correct])
            text += f" ± {100 * float(of_draws(hits).half):.1f} (95 %, over images)"
        text += f" of {counted(self.labelled, 'labelled image')}"
        if absent := len(self.classes) - len(self.present):
            text += f"; {absent} of {len(self.classes)} classes have none"
        return f"{text}."
