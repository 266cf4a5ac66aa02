"""Tip-Adapter: a key-value cache of the shots beside the zero-shot classifier.

    logits = s x T^T + alpha exp(-beta (1 - x K^T)) V                      (1)

    x [n d] query rows, unit      T [c d] class anchors, unit      s logit scale
    K [m d] support rows (keys)   V [m c] one-hot labels (values), of a corpus row times its weight

Reference: Zhang et al., Tip-Adapter, ECCV 2022, arXiv:2207.09519, eq. 5-6.
Source: paper and released code @d0e2d6f.
Differs from the paper: where a support image has cached views, its key is normalise(mean of their
raw features), as in the released code; `variant=paper` averages unit features, so that a longer one
counts no more. One search grid for all data sets (the released Caltech101 scale, beta below 12 and
alpha below 5); the released code sets its upper ends, and alpha and beta without a search, per data
set. Weights of corpus rows are ours.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, evenly, number
from heads.ops.algebra import affinities, with_cache


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    variant: Literal["code", "paper"] = "code"
    """How cached views make a key: `code` averages raw features, `paper` unit ones."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(1.0, low=0.0, logits="affine")
    """Weight of the cache term; 0 gives zero-shot."""
    beta: float = number(5.5, low=0.0, logits="smooth")
    """Sharpness of the affinity; larger trusts only near keys."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Memorise the shots: no parameters, fixed keys and labels."""
    keys = task.support.mean_of_views(raw=config.variant == "code")
    memory = {"keys": keys, "labels": task.support.y}
    if task.support.weights is not None:
        memory["weights"] = task.support.weights
    return {}, memory | text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two products of (1), once for the whole alpha-beta grid."""
    distance = 1 - affinities(rows.x, fixed["keys"])
    return {"text": zero_shot_logits(fixed, rows.x), "distance": distance}  # [n c], [n m]


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    return with_cache(
        **terms,
        labels=fixed["labels"],
        alpha=hyper.alpha,
        beta=hyper.beta,
        weights=fixed.get("weights"),
    )


METHOD = Method(
    name="tip-adapter",
    summary="Training-free cache of the shots beside the zero-shot classifier.",
    source="paper and released code: Zhang et al. 2022, arXiv:2207.09519",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid({"beta": evenly(0.1, 12, 200), "alpha": evenly(0.1, 5, 20)}),
    weighs_corpus=True,
    holds=("keys",),
)
