"""Zero-shot: class texts alone answer the whole split; no shots, no selection, one repetition."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from featcache.errors import UsageError
from featcache.types import FeatureSet
from heads.core import registry
from heads.core.selection import Progress
from heads.core.settings import configure
from heads.core.tasks import Task, TaskBuilder, pick_device, query_rows
from heads.protocols.evaluation import Run, Trained, measure
from heads.results.record import Result


def run(method_name: str = "zero-shot", **arguments: Any) -> Result:
    """Evaluate a method and return the record; arguments as `train`."""
    return train(method_name, **arguments).result


def train(
    method_name: str = "zero-shot",
    *,
    feature_set: FeatureSet,
    split: str = "test",
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Trained:
    """Evaluate a method that reads no labelled image.

    Args:
        method_name: A method's name.
        feature_set: The cache, opened.
        split: Where the queries come from.
        settings: Fields of the method's Config and Hyper, one value each.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.

    Raises:
        UsageError: If the method needs labelled images.
    """
    method = registry.get(method_name)
    configured = configure(method, settings)
    needs = method.needs(configured.config)
    roles = {need.role for need in needs}
    if "support" in roles:
        raise UsageError(
            f"Method '{method_name}' learns from labelled images; give it some with --shots K."
        )
    if "pool" in roles:
        raise UsageError(
            f"Method '{method_name}' learns from unlabelled images; use the unsupervised protocol."
        )
    description = Run(
        method=method,
        settings=configured,
        features=feature_set,
        protocol="zero_shot",
        selection="none",
        split=split,
        shots=0,
        seeds=(0,),
        extra={},
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
        return [builder.build(none, none, seed=0, shots=0)]

    return measure(description, tasks, progress)
