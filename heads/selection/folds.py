"""Folds of the support, for people without validation images."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from featcache.errors import TaskError
from featcache.wording import Argument
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView, find_kind

FOLDS = 4
"""Folds at most; no more than the shots of the largest class."""


def folds(view: TaskView) -> tuple[list[TaskView], list[Rows]]:
    """Split the support class by class; a class with a single row always trains.

    Rows from a corpus train in every fold: their labels are no truth to be judged by.
    """
    labels = view.support.y[: len(view.support) - view.retrieved]
    counts = torch.bincount(labels, minlength=view.c)
    count = min(FOLDS, int(counts.max()))
    if count < 2:
        raise TaskError(
            Argument("selection", "cv"),
            " needs a class with two or more training images. Use ",
            Argument("selection", "none"),
            ", or more shots.",
        )
    rng = np.random.default_rng([view.seed, 0xF01D])
    fold_of = np.full(len(view.support), -1)
    for c in torch.nonzero(counts > 1)[:, 0].tolist():
        rows = rng.permutation(np.flatnonzero(labels.cpu().numpy() == c))
        fold_of[rows] = np.arange(len(rows)) % count
    views, held_out = [], []
    for k in range(count):
        inside = torch.from_numpy(np.flatnonzero(fold_of != k)).to(labels.device)
        outside = torch.from_numpy(np.flatnonzero(fold_of == k)).to(labels.device)
        support = view.support.take(inside, read=False)
        if support.weights is not None and not view.retrieved:
            support = replace(support, weights=support.weights / support.weights.mean())
        views.append(replace(view, support=support))
        held_out.append(view.support.take(outside, read=False))
    return views, held_out


def check_held_out(method: AnyMethod, config: Any, support: Rows) -> None:
    """Refuse folds of rows that a method cannot answer.

    A method may read crops or patches of its queries alone; the support then comes without them.

    Raises:
        TaskError: If the support lacks features that the method reads of its queries.
    """
    for need in method.needs(config):
        is_kind = need.role == "query" and need.kind != "global" and not need.optional
        if is_kind and find_kind(support.kinds, need.key) is None:
            raise TaskError(
                f"{method.name} reads {need.kind} of the images it answers but not of its training "
                f"images, so folds of those cannot choose its settings. Use ",
                Argument("selection", "few-shot-val"),
                ", or ",
                Argument("selection", "none"),
                ".",
            )
