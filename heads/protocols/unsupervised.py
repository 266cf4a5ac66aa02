"""Unsupervised adaptation: every image of `train` without its label, and the class texts.

All images are used, so every seed has the same draw: one repetition, whose interval comes from the
queries. No label is read; with selection full-val those of val, to choose settings.
"""

import numpy as np

from featcache.errors import MissingComponentError, TaskError, UsageError
from featcache.types import FeatureSet
from featcache.wording import Argument, Part, Setting
from heads.episode import Episode, RowIndex
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.calibrating import selecting
from heads.protocols.plan import Plan, Request, Run
from heads.results.record import digest_ids
from heads.selection.select import has_choice
from heads.selection.settings import configure

POOL = "train"
"""The split whose images are the pool."""


def plan(request: Request) -> Plan:
    """Plan training on unlabelled images.

    Selections by labelled shots or folds become `none`, as there are no labelled images.

    Raises:
        UnknownNameError: If the method, a setting or the selection is unknown.
        UsageError: If there are values to choose from and no validation labels.
        TaskError: If there are no unlabelled images, or no validation images where asked for.
        MissingComponentError: If the features were imported without such images.
    """
    method, features = request.resolve(), request.features
    configured = configure(method, request.settings)
    if features.key.is_imported and POOL not in features.listing.splits:
        raise MissingComponentError(
            f"Method '{method.name}' learns from the images of '{POOL}' without their labels; "
            f"'{features.listing.dataset}' was imported without such a pool, so choose another "
            f"method."
        )
    mode = request.selection if request.selection in ("full-val", "oracle") else "none"
    if mode == "none" and configured.choices > 1:
        given: list[Part] = [Setting(key, value) for key, value in configured.given.items()]
        between = [part for setting in given for part in (" ", setting)][1:]
        raise UsageError(
            "Without labels nothing can choose among several values (",
            between,
            "). Give one value each, or ",
            Argument("selection", "full-val"),
            ", which reads the labels of val.",
        )
    if not has_choice(method, configured, request.selection):
        mode = "none"
    seed = next(iter(request.seeds))
    pool = _pool(features, method.name)
    val = _validation(features, mode, seed, request.calibrate_on)

    def episodes(builder: EpisodeBuilder) -> list[Episode]:
        none, oracle = np.zeros(0, dtype=np.int64), mode == "oracle"
        return [builder.build(none, val, seed=seed, shots=0, pool=pool, oracle=oracle)]

    ids = features.listing.ids
    return Plan(
        run=Run(
            method=method,
            settings=configured,
            features=features,
            protocol="unsupervised",
            selection=mode,
            shots=0,
            seeds=(seed,),
            learned=digest_ids(ids[int(r)] for rows in (pool, val) for r in rows),
            learns_from=(POOL, "val") if mode == "full-val" else (POOL,),
            notes=(f"Trained on {len(pool)} images of {POOL}, without a look at their labels.",),
        ),
        episodes=episodes,
        splits=request.splits,
        learned_rows=((np.zeros(0, dtype=np.int64), pool),),
        validation=(val,),
    )


def _pool(features: FeatureSet, method: str) -> RowIndex:
    """Return the rows of the pool."""
    pool = features.usable(POOL)
    if not len(pool):
        raise TaskError(
            f"Data set '{features.listing.dataset}' has no readable image in '{POOL}', and "
            f"'{method}' learns from these. Add some, labelled or not."
        )
    return pool


def _validation(features: FeatureSet, mode: str, seed: int, calibrate_on: str) -> RowIndex:
    """Return the validation rows; none unless the mode is full-val."""
    if mode != "full-val":
        return np.zeros(0, dtype=np.int64)
    val = selecting(features, seed, calibrate_on)
    if not len(val):
        raise TaskError(
            f"Data set '{features.listing.dataset}' has no labelled val images, so ",
            Argument("selection", "full-val"),
            " cannot work. Use ",
            Argument("selection", "none"),
            " (the defaults).",
        )
    return val
