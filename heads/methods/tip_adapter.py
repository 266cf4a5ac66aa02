"""Tip-Adapter: a key-value cache of the shots beside the zero-shot classifier.

    logits = s x T^T + alpha exp(-beta (1 - x K^T)) V                      (1)

    x [n d] query rows, unit      T [c d] class anchors, unit      s logit scale
    K [m d] support rows (keys)   V [m c] one-hot labels (values)

Reference: Zhang et al., Tip-Adapter, ECCV 2022, arXiv:2207.09519, eq. 5-6.
Source: paper and released code @d0e2d6f.
Differs from the paper: where a support image has cached views, its key is normalise(mean of their
raw features), as in the released code; `variant=paper` averages unit features, so that a longer one
counts no more. One search grid for all data sets (the released Caltech101 scale, beta below 12 and
alpha below 5); the released code sets its upper ends, and alpha and beta without a search, per data
set.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from heads.contract import Grid, Need, Stage, TaskView, Tensors, TextKind, number
from heads.ops.algebra import (
    SHOTS_WITH_VIEWS,
    affinities,
    mean_of_views,
    sum_by_label,
    text_tensors,
    zero_shot_logits,
)

name = "tip-adapter"
summary = "Training-free cache of the shots beside the zero-shot classifier."
source = "paper and released code: Zhang et al. 2022, arXiv:2207.09519"
transductive = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """What changes a branch."""

    text: TextKind | None = None
    """What the anchors are made of; None is the data set's default."""
    variant: Literal["code", "paper"] = "code"
    """How cached views make a key: `code` averages raw features, `paper` unit ones."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Floats of equation (1)."""

    alpha: float = number(1.0, low=0.0, logits="affine")
    """Weight of the cache term; 0 gives zero-shot."""
    beta: float = number(5.5, low=0.0, logits="smooth")
    """Sharpness of the affinity; larger trusts only near keys."""


train_grid = Grid()
post_grid = Grid(
    {
        "beta": [0.1 + i * (12 - 0.1) / 200 for i in range(200)],
        "alpha": [0.1 + i * (5 - 0.1) / 20 for i in range(20)],
    }
)


def needs(config: Config) -> frozenset[Need]:
    """Support rows; their augmented views where there are any."""
    return SHOTS_WITH_VIEWS


def stages(config: Config) -> tuple[Stage, ...]:
    """Train nothing."""
    return ()


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Memorise the shots: no parameters, fixed keys and labels."""
    assert task.support.labels is not None
    keys = mean_of_views(task.support, raw=config.variant == "code")
    memory = {"keys": keys, "labels": task.support.labels}
    return {}, memory | text_tensors(task, config.text, method=name)


def terms(params: Tensors, fixed: Tensors, query: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two products of (1), once for the whole alpha-beta grid."""
    x = query["x"]
    return {
        "zero_shot": zero_shot_logits(fixed, x),  # [n c]
        "distance": 1 - affinities(x, fixed["keys"]),  # [n m]
    }


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    votes = torch.exp(-hyper.beta * terms["distance"])  # [n m]
    classes = terms["zero_shot"].shape[-1]
    return terms["zero_shot"] + hyper.alpha * sum_by_label(votes, fixed["labels"], classes=classes)
