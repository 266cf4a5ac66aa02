"""Learning from a corpus alone: its rows and pseudo-labels, and not one labelled image.

Every seed has the same corpus, so there is one repetition, whose interval comes from the queries.
Labels are read to choose settings only: of a few images a class of `val` (`few-shot-val`), or of
all of them (`full-val`). Folds of the corpus would judge by pseudo-labels and are refused.
"""

import random

import numpy as np

from featcache.draws import VAL_SHOTS, draw, labelled
from featcache.errors import TaskError, UsageError
from featcache.types import FeatureSet
from featcache.wording import Argument
from heads.episode import Episode, RowIndex
from heads.protocols.augment import ASKED, augmented
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.calibrating import selecting
from heads.protocols.plan import Plan, Request, Run
from heads.results.record import digest_ids
from heads.selection.select import has_choice
from heads.selection.settings import configure

CORPUS_ONLY = "corpus_only"
"""Name of the protocol in records."""


def plan(request: Request) -> Plan:
    """Plan training on a corpus.

    Raises:
        UnknownNameError: If the method, a setting, the selection or the corpus is unknown.
        UsageError: If no corpus is named, or the selection needs labelled images to train on.
        TaskError: If there are no validation images where asked for, or the corpus holds queries.
    """
    method, features = request.resolve(), request.features
    if request.augment is None and request.shots == 0:
        raise UsageError(
            f"shots must be at least 1: without any, method '{method.name}' learns from a corpus "
            f"alone, and none is named. Name one with ",
            ASKED,
            ".",
        )
    configured = configure(method, request.settings)
    corpus = augmented(method, configured.config, features, request.augment, request.splits)
    assert corpus is not None, "a method with a corpus role or without shots has one"
    counts = np.bincount(corpus.retrieved.rows.y.numpy(), minlength=len(features.classes))
    if int((counts > 0).sum()) < 2:
        raise TaskError(
            f"Corpus '{corpus.use.name}' has rows of one class; two or more are needed. Build it "
            f"from more images."
        )
    typical = max(1, round(float(counts.mean())))  # defaults of some methods depend on the shots
    configured = configure(method, request.settings, shots=typical)
    seed = next(iter(request.seeds))
    chosen = has_choice(method, configured, request.selection)
    mode, notes = _mode(request.selection, features) if chosen else ("none", [])
    val, none = _validation(features, mode, seed, request.calibrate_on), np.zeros(0, dtype=np.int64)

    def episodes(builder: EpisodeBuilder) -> list[Episode]:
        return [builder.build(none, val, seed=seed, shots=0, oracle=mode == "oracle")]

    ids, labels = features.listing.ids, features.labels
    return Plan(
        run=Run(
            method=method,
            settings=configured,
            features=features,
            protocol=CORPUS_ONLY,
            selection=mode,
            shots=0,
            seeds=(seed,),
            learned=digest_ids(f"{labels[r]} {ids[r]}" for r in val.tolist()) if len(val) else "",
            learns_from=("val",) if len(val) else (),
            notes=(*notes, *corpus.notes),
            augmented=corpus,
        ),
        episodes=episodes,
        splits=request.splits,
        learned_rows=((none, None),),
        validation=(val,),
    )


def _mode(requested: str, features: FeatureSet) -> tuple[str, list[str]]:
    """Return the selection that is used, and notes on it.

    Raises:
        UsageError: If it chooses on labelled images to train on, or as many as there are shots.
        TaskError: If all of `val` is asked for and there is none.
    """
    if requested in ("cv", "k-shot-val"):
        why = (
            "judges by labels of training images, and a corpus has pseudo-labels"
            if requested == "cv"
            else "takes as many validation images as shots, and there are none"
        )
        raise UsageError(
            Argument("selection", requested),
            f" {why}. Use ",
            Argument("selection", "few-shot-val"),
            " or ",
            Argument("selection", "none"),
            ".",
        )
    if not requested.endswith("-val") or len(labelled(features.listing, "val", features.ok)):
        return requested, []
    said = f"Data set '{features.listing.dataset}' has no labelled val images"
    if requested == "full-val":
        raise TaskError(
            f"{said}, so ",
            Argument("selection", requested),
            " cannot work. Use ",
            Argument("selection", "none"),
            " (the defaults).",
        )
    return "none", [f"{said}; the default hyper-parameters were taken."]


def _validation(features: FeatureSet, mode: str, seed: int, calibrate_on: str) -> RowIndex:
    """Return the validation rows: all, a few a class, or none."""
    rows = labelled(features.listing, "val", features.ok)
    if not mode.endswith("-val"):
        return rows[:0]
    if mode == "full-val":
        return selecting(features, seed, calibrate_on)
    drawn = draw(features.labels[rows].tolist(), rows.tolist(), VAL_SHOTS, random.Random(seed))
    return np.array(drawn, dtype=np.int64)
