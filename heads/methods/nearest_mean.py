"""Nearest mean: a query belongs to the class whose mean feature is closest.

    m_c    = mean of the unit rows x_i of class c, weighted where rows come from a corpus
    logits = x normalise(m_c)^T                        distance=cosine     (1)
    logits = -|x - m_c|^2                              distance=euclidean  (2)

    x [n d] query rows, unit      m [c d] class means

A class without a row gets 4 less than it could have otherwise, so that it never wins.

Reference: Snell et al., Prototypical Networks, NeurIPS 2017, arXiv:1703.05175; as a classifier on
fixed features Mensink et al., TPAMI 2013.
Source: paper, (2) on frozen features; (1) is the variant for unit features of Chen et al.,
Meta-Baseline, ICCV 2021, arXiv:2003.04390, up to its scale.
Differs from the paper: nothing is learned, and (1) is the default.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from heads.contract.linear import Linear
from heads.contract.method import Method
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Nothing
from heads.ops.algebra import is_class


@dataclass(frozen=True, kw_only=True)
class Config:
    distance: Literal["cosine", "euclidean"] = "cosine"
    """Equation (1) or (2)."""


def prepare(task: TaskView, config: Config, hyper: Nothing) -> tuple[Tensors, Tensors]:
    """Average the rows of each class."""
    labels = task.support.y
    own = is_class(labels, task.c).to(task.support.x)  # [n c]
    if task.support.weights is not None:
        own = own * task.support.weights[:, None]
    counts = own.sum(0)
    means = own.mT @ task.support.x / torch.where(counts > 0, counts, 1)[:, None]
    return {}, {"means": means, "empty": (counts == 0).to(means)}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Nothing) -> Tensors:
    """Equation (1) or (2)."""
    x, means = rows.x, fixed["means"]
    if config.distance == "cosine":
        near = x @ F.normalize(means, dim=-1).mT
    else:
        near = 2 * x @ means.mT - means.square().sum(-1) - x.square().sum(-1, keepdim=True)
    return {"logits": near - 4 * fixed["empty"]}


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Nothing) -> Linear:
    """Equation (1), or (2) with |x| = 1."""
    means = fixed["means"]
    if config.distance == "cosine":
        return Linear(F.normalize(means, dim=-1), -4 * fixed["empty"])
    return Linear(2 * means, -means.square().sum(-1) - 1 - 4 * fixed["empty"])


METHOD = Method(
    name="nearest-mean",
    summary="The class whose mean feature is closest; reads no text.",
    source="paper: Snell et al. 2017, arXiv:1703.05175",
    prepare=prepare,
    terms=terms,
    weighs_corpus=True,
    linear=linear,
)
