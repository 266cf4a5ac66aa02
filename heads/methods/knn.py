"""kNN: the nearest shots vote, closer ones with more weight.

    logits_c = sum over the k nearest i with y_i = c of exp((x . x_i - x . x_1) / T)   (1)

    x [n d] query rows, unit      x_i [m d] support rows, unit     y_i their labels
    x_1 the nearest               k neighbours                  T temperature

The 200 nearest rows are found once, exactly; k is a mask over them and T a power, so that both are
searched without another look at the support.

Reference: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR
2018, arXiv:1805.01978, section 3.4; as in Caron et al., DINO, ICCV 2021, arXiv:2104.14294.
Source: paper and released code (facebookresearch/dino @04c0ad9, eval_knn.py); the factor
exp(-x . x_1 / T), common to all classes, keeps (1) between 1 and k at any T.
Differs from the paper: k and T are searched, k also below the released 10, 20, 100 and 200, which a
few shots do not fill.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.neighbours import nearest
from heads.contract.method import Method
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, number

MOST = 200
"""Largest k, as released."""


@dataclass(frozen=True, kw_only=True)
class Config:
    index: Literal["exact", "faiss"] = "exact"
    """What finds them: torch, or faiss (extra `cpu` or `gpu`); the answers are the same."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    k: float = number(20.0, low=1.0, high=MOST, whole=True)
    """How many vote; all rows do where there are fewer."""
    T: float = number(0.07, above=0.0)
    """Temperature; smaller trusts only the closest."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Remember the shots."""
    x = task.support.x
    return {}, {"keys": x, "labels": task.support.y, "none": x.new_zeros(task.c)}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Find the neighbours, once for all k and T."""
    k = min(MOST, len(fixed["keys"]))
    similarity, place = nearest(rows.x, fixed["keys"], k, index=config.index)
    return {"similarity": similarity, "label": fixed["labels"][place]}  # [n k], nearest first


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    similarity, label = terms["similarity"], terms["label"]
    rank = torch.arange(similarity.shape[-1], device=similarity.device)
    votes = torch.exp((similarity - similarity[..., :1]) / hyper.T) * (rank < hyper.k)
    empty = fixed["none"].expand(similarity.shape[0], -1)
    return empty.scatter_add(-1, label, votes)


METHOD = Method(
    name="knn",
    summary="Weighted vote of the nearest shots; reads no text.",
    source="paper and released code: Wu et al. 2018, arXiv:1805.01978",
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid({"T": [0.01, 0.02, 0.04, 0.07, 0.2], "k": [1, 2, 4, 5, 10, 20, 50, 100, MOST]}),
    holds=("keys",),
)
