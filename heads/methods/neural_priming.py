"""Neural Priming: class texts averaged with the class means of retrieved rows.

    logits = s x W^T + b                                                   (1)
    W_c    = alpha T_c + (1 - alpha) P_c                                   (2)
    P_c    = normalise(sum of the rows of class c, times their weights)    (3)

    x [n d] query rows, unit      T [c d] class anchors, unit      s, b logit scale and bias
    P [c d] class means of the corpus and, where there are any, of the shots

W is not normalised again. A class without rows keeps its text: W_c = T_c.

Reference: Wallingford et al., Neural Priming for Sample-Efficient Adaptation, NeurIPS 2023,
arXiv:2306.10191.
Source: released code @16fe1b0, Priming/prime.py; the paper's body was not read.
Differs from the paper: the released code gives a class without rows alpha T_c, which it then
hardly ever answers. The released alpha is one number from the command line, 0.9 by default; a
search over it is ours. Rows come from `featcache corpus build`, by features, where the paper
filters captions of LAION-2B. Its fine-tuning and its filter by test images are not here, and no
weight for the frequency of classes was found in the released code.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.linear import Linear, of_anchors
from heads.contract.method import SUPPORT_AND_QUERY, Method, Need
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, evenly, number
from heads.ops.algebra import is_class


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(0.9, low=0.0, high=1.0, logits="affine")
    """Share of the class texts; 1 gives zero-shot."""


def needs(config: WithText) -> frozenset[Need]:
    """Read the corpus, the shots and the queries."""
    return SUPPORT_AND_QUERY | {Need(role="corpus")}


def prepare(task: TaskView, config: WithText, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Compute (3)."""
    assert task.corpus is not None, "the protocol gives a corpus to methods that need one"
    text = text_tensors(task, config.text, method=METHOD.name)
    both = (task.corpus, task.support) if len(task.support) else (task.corpus,)
    sums = torch.stack([_sums(rows, task.c) for rows in both]).sum(0)
    empty = (sums == 0).all(-1, keepdim=True)
    means = torch.where(empty, text["anchors"], F.normalize(sums, dim=-1))
    return {}, text | {"means": means}


def _sums(rows: Rows, classes: int) -> Float[Tensor, "c d"]:
    own = is_class(rows.y, classes).to(rows.x) * rows.row_weights[:, None].to(rows.x)  # [n c]
    return own.mT @ rows.x


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: WithText, hyper: Hyper) -> Tensors:
    """Compute both classifiers, once for all alpha."""
    means = zero_shot_logits(fixed | {"anchors": fixed["means"]}, rows.x)
    return {"text": zero_shot_logits(fixed, rows.x), "means": means}  # [n c]


def combine(terms: Tensors, fixed: Tensors, config: WithText, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equations (1) and (2)."""
    return hyper.alpha * terms["text"] + (1 - hyper.alpha) * terms["means"]


def linear(params: Tensors, fixed: Tensors, config: WithText, hyper: Hyper) -> Linear:
    """Equations (1) and (2)."""
    weight = hyper.alpha * fixed["anchors"] + (1 - hyper.alpha) * fixed["means"]
    return of_anchors(fixed, weight)


METHOD = Method(
    name="neural-priming",
    summary="Class texts averaged with class means of a corpus; with or without shots.",
    source="released code: Wallingford et al. 2023, arXiv:2306.10191",
    needs=needs,
    prepare=prepare,
    terms=terms,
    combine=combine,
    weighs_corpus=True,
    post_grid=Grid({"alpha": evenly(0.05, 1.05, 20)}),
    linear=linear,
)
