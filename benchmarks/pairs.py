"""Changes of methods that `benchmarks/sharpened.py` measures: settings before and after.

To measure another, add it to PAIRS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WITH_TEXTS = {"fieldguide": (1, 4, 16), "imagenet256": (1, 3, 4), "caltech50": (1, 4, 16)}
Shots = Mapping[str, Sequence[int]]
"""Data set -> shots a class; 0 for methods that read no labelled images."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A change of a method: its settings before and after."""

    name: str
    """What changes, as a table says it."""
    method: str
    before: Mapping[str, Any] = field(default_factory=dict)
    """Settings that give the answers of before; the method's defaults where there are none."""
    after: Mapping[str, Any] = field(default_factory=dict)
    other: str = ""
    """The method of before, where it is another."""
    shots: Shots = field(default_factory=lambda: WITH_TEXTS)
    splits: tuple[str, ...] = ("test",)
    """Query sets of the report."""
    reads_train: bool = False
    """Whether images of train are no held-out queries: it reads them without labels, or needs crops
    of its queries, which are not cached for train."""


NO_SHOTS: Shots = {"fieldguide": (0,), "fieldguide-pairs": (0,)}
SHIFTS = ("sketch", "night", "scan")
ONE_SHOT: Shots = {"fieldguide": (1,), "imagenet256": (1,), "caltech50": (1,)}
WITH_PATCHES: Shots = {"fieldguide": (1, 4, 16)}
LFA_FORM = {
    "init": "procrustes",
    "train_text": "false",
    "fusion": "false",
    "discriminant": "false",
}
"""A map alone, from the rotation of the shots onto their texts."""
BETA: Mapping[str, Any] = {"beta": 0.9}
"""Share of the identity at the start, as the authors of LFA fix it where they do not search it."""


def unlabelled(name: str, method: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Pair:
    """Return a change of a method without shots, also measured on the shifts."""
    return Pair(
        name=name,
        method=method,
        before=before,
        after=after,
        shots=NO_SHOTS,
        splits=("test", *SHIFTS),
        reads_train=True,
    )


PAIRS = (
    Pair(
        name="dac: texts trained by one map -> by residuals",
        method="dac",
        before={"modulation": "map"},
        after={"modulation": "residual"},
    ),
    Pair(
        name="dac: texts trained by leave-one-out -> by text alone where a class has one key",
        method="dac",
        before={"affinity": "leave-one-out"},
        after={"affinity": "leave-one-out-or-text"},
        shots=ONE_SHOT,
    ),
    Pair(
        name="cmm: without -> with the discriminant",
        method="cmm",
        before={"discriminant": "false"},
    ),
    Pair(
        name="cmm: lam of 1 or 10 -> of 0, 1 or 10",
        method="cmm",
        after={"lam": "0,1,10"},
        shots=ONE_SHOT,
    ),
    Pair(
        name="lfa -> cmm in the form of lfa",
        method="cmm",
        other="lfa",
        after=LFA_FORM,
    ),
    Pair(
        name="lfa, beta 0.9 -> cmm in the form of lfa, beta 0.9",
        method="cmm",
        other="lfa",
        before=BETA,
        after={**LFA_FORM, **BETA},
    ),
    Pair(
        name="lfa, beta 0.9, triplet -> cmm in the form of lfa, beta 0.9",
        method="cmm",
        other="lfa",
        before={**BETA, "loss": "triplet"},
        after={**LFA_FORM, **BETA},
    ),
    Pair(
        name="cc-cdfsl: cycles on patches as they are -> on mapped ones",
        method="cc-cdfsl",
        before={"patch_map": "none"},
        shots=WITH_PATCHES,
    ),
    Pair(
        name="cc-cdfsl: the same views without cycles -> with them",
        method="cc-cdfsl",
        before={"control": "augment-only"},
        shots=WITH_PATCHES,
    ),
    unlabelled(
        name="lazsl: select paper -> confidence",
        method="lazsl",
        before={"select": "paper"},
        after={"select": "confidence"},
    ),
    unlabelled(
        name="lazsl: select all -> confidence",
        method="lazsl",
        before={"select": "all"},
        after={"select": "confidence"},
    ),
    unlabelled(
        name="lazsl: mean of confident crops -> transport",
        method="lazsl",
        before={"select": "confidence", "theta": 1.0, "reg": 1000.0},
        after={"select": "confidence"},
    ),
    unlabelled(
        name="fair: start -> discriminant",
        method="fair",
        before={"student": "anchors", "epochs": 0},
        after={"student": "discriminant", "teacher": "confidence"},
    ),
    unlabelled(
        name="fair: teacher weighted -> confidence",
        method="fair",
        before={"student": "anchors", "teacher": "weighted"},
        after={"student": "anchors", "teacher": "confidence"},
    ),
    unlabelled(
        name="fair: student anchors -> discriminant",
        method="fair",
        before={"student": "anchors", "teacher": "weighted"},
        after={"student": "discriminant", "teacher": "confidence"},
    ),
)
