"""Unsupervised adaptation: every image of `train` without its label, and the class texts.

All images are used, so every seed has the same draw: one repetition, whose interval comes from the
queries. No label is read; with --selection full-val those of val, to choose settings.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from featcache.errors import MissingComponentError, TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads.core import registry
from heads.core.selection import MODES, Progress, has_choice
from heads.core.settings import configure
from heads.core.tasks import Task, TaskBuilder, labelled, pick_device, query_rows
from heads.protocols.evaluation import Run, Trained, measure
from heads.results.record import Result

POOL = "train"
"""The split whose images are the pool."""


def run(method_name: str, **arguments: Any) -> Result:
    """Train a method and return the record; arguments as `train`."""
    return train(method_name, **arguments).result


def train(
    method_name: str,
    *,
    feature_set: FeatureSet,
    seed: int = 1,
    split: str = "test",
    selection: str = "none",
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Trained:
    """Train a method on unlabelled images and evaluate it.

    Args:
        method_name: A method's name.
        feature_set: The cache, opened.
        seed: Of the batches.
        split: Where the queries come from.
        selection: none, full-val or oracle. The others count in shots or folds of labelled
            images; there are none of these, so they are none too.
        settings: Fields of the method's Config and Hyper; several values make a grid.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.

    Raises:
        UnknownNameError: If the method, split, setting or selection is unknown.
        UsageError: If the method reads no unlabelled images, or needs labelled ones, or there are
            values to choose from and nothing to choose by.
        TaskError: If there are no unlabelled images, or no validation images where asked for.
        MissingComponentError: If the cache lacks what the method needs.
    """
    method = registry.get(method_name)
    if selection not in MODES:
        raise UnknownNameError("selection", selection, MODES)
    configured = configure(method, settings)
    needs = method.needs(configured.config)
    roles = {need.role for need in needs}
    if "pool" not in roles or "support" in roles:
        raise UsageError(
            f"Method '{method_name}' does not learn from unlabelled images alone; "
            f"train it with --shots K."
        )
    if feature_set.key.is_imported and POOL not in feature_set.listing.splits:
        raise MissingComponentError(
            f"Method '{method_name}' learns from the images of '{POOL}' without their labels; "
            f"'{feature_set.listing.dataset}' was imported without such a pool, so choose another "
            f"method."
        )
    mode = selection if selection in ("full-val", "oracle") else "none"
    if mode == "none" and configured.choices > 1:
        given = " ".join(f"--set {key}={value}" for key, value in configured.given.items())
        raise UsageError(
            f"Without labels nothing can choose among several values ({given}). Give one value "
            f"each, or --selection full-val, which reads the labels of val."
        )
    if not has_choice(method, configured, selection):
        mode = "none"
    description = Run(
        method=method,
        settings=configured,
        features=feature_set,
        protocol="unsupervised",
        selection=mode,
        split=split,
        shots=0,
        seeds=(seed,),
        extra={},
        learns_from=(POOL, "val") if mode == "full-val" else (POOL,),
    )

    def tasks() -> list[Task]:
        builder = TaskBuilder(
            features=feature_set,
            needs=needs,
            device=pick_device(device),
            text=getattr(configured.config, "text", None),
            query_rows=query_rows(feature_set, split),
        )
        none = np.zeros(0, dtype=np.int64)
        pool = feature_set.usable(POOL)
        dataset = feature_set.listing.dataset
        if not len(pool):
            raise TaskError(
                f"Data set '{dataset}' has no readable image in '{POOL}', and '{method_name}' "
                f"learns from these. Add some, labelled or not."
            )
        val = labelled(feature_set, "val") if mode == "full-val" else none
        if mode == "full-val" and not len(val):
            raise TaskError(
                f"Data set '{dataset}' has no labelled val images, so --selection full-val cannot "
                f"work. Use --selection none (the defaults)."
            )
        builder.notes.append(
            f"Trained on {len(pool)} images of {POOL}, without a look at their labels."
        )
        return [builder.build(none, val, seed=seed, shots=0, pool=pool, oracle=mode == "oracle")]

    return measure(description, tasks, progress)
