"""Folds of the support, for people without validation images."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from featcache.errors import TaskError
from heads.contract import RoleRows, TaskView

FOLDS = 4
"""Folds at most; no more than the shots of the largest class."""


def folds(view: TaskView) -> tuple[list[TaskView], list[RoleRows]]:
    """Split the support class by class; a class with a single row always trains."""
    labels = view.support.labels
    assert labels is not None
    counts = torch.bincount(labels, minlength=view.c)
    count = min(FOLDS, int(counts.max()))
    if count < 2:
        raise TaskError(
            "--selection cv needs a class with two or more training images. "
            "Use --selection none, or more shots."
        )
    rng = np.random.default_rng([view.seed, 0xF01D])
    fold_of = np.full(len(labels), -1)
    for c in torch.nonzero(counts > 1)[:, 0].tolist():
        rows = rng.permutation(np.flatnonzero(labels.cpu().numpy() == c))
        fold_of[rows] = np.arange(len(rows)) % count
    views, held_out = [], []
    for k in range(count):
        inside = torch.from_numpy(np.flatnonzero(fold_of != k)).to(labels.device)
        outside = torch.from_numpy(np.flatnonzero(fold_of == k)).to(labels.device)
        weights = None if view.weights is None else view.weights[inside]
        views.append(
            replace(
                view,
                support=subset(view.support, inside),
                weights=None if weights is None else weights / weights.mean(),
            )
        )
        held_out.append(subset(view.support, outside))
    return views, held_out


def subset(rows: RoleRows, index: Tensor) -> RoleRows:
    """Take some rows of a role with everything that belongs to them."""
    return RoleRows(
        x=rows.x[index],
        norms=rows.norms[index],
        labels=None if rows.labels is None else rows.labels[index],
        extra={name: values[index] for name, values in rows.extra.items()},
        lengths={name: values[index] for name, values in rows.lengths.items()},
    )
