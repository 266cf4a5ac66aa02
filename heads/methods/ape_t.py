"""APE-T: a residual a class, shared by its text and its keys on chosen channels, is trained.

    T' = T + P(R)    K' = K + P(R[y])                                      (1)
    logits = s x T'^T + b + alpha exp(-beta (1 - x K'^T)) diag(w) Y        (2)
    loss   = CE(logits, y) over R and w, at the initial alpha and beta     (3)

    x [n d] rows, unit            T [c d] class anchors, unit      s, b logit scale and bias
    K [m d] support rows (keys)   Y [m c] one-hot labels, y their classes
    R [c q] residuals, trained, start at 0                         w [m] weights, start at 1
    P      puts R into the channels of largest J, (1) of `heads.ops.ape_criterion`

All channels are used, and neither T' nor K' is made unit again, as in the released code. After
training alpha and beta are searched.

Reference: Zhu et al., Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior
Refinement, ICCV 2023, arXiv:2304.01195.
Source: released code @20258ec; the paper's body was not read. AdamW 1e-3 with eps 1e-3 and decay
0.1, cosine per step, batch 256; the best epoch on validation.
Differs from the paper: the released code does not run as it is, because R has `training_feat_num`
columns but J picks `training_free_feat_num` channels; here there is one number, by the rule of
`ape`. It trains 20 to 30 epochs (200 for EuroSAT), here 30. Of equal epochs the latest is kept, not
the first. Each step trains on a cached augmented view, where there are any, in place of a fresh
augmentation. Texts and views as in `ape`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from heads.class_texts import text_tensors
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, evenly, number
from heads.contract.stages import cross_entropy_of, one_stage
from heads.ops.algebra import with_votes
from heads.ops.ape_criterion import best_channels, kept_channels, similarity
from heads.training.optim import adamw
from heads.training.samplers import shuffled


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    channels: int = number(0, low=0)
    """Channels with a residual; 0 takes 25 of 32, as the released 800 of 1024."""
    variant: Literal["code", "paper"] = "code"
    """How cached views make a key: `code` averages raw features, `paper` unit ones."""
    epochs: int = number(30, low=0)
    """Passes over the support."""
    batch: int = number(256, low=1)
    """Rows of a step."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(1e-3, above=0.0)
    """AdamW's step size at the start; falls to 0 as a cosine. 1e-4 was released for ImageNet."""
    alpha: float = number(1.0, low=0.0, logits="affine")
    """Weight of the cache term."""
    beta: float = number(1.0, low=0.0, logits="smooth")
    """Sharpness of the affinity; larger trusts only near keys."""
    omega: float = number(0.2, low=0.0, high=1.0, prepare=True)
    """Weight of the classes' similarity in J; the texts' variance has the rest."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at Tip-Adapter."""
    labels = task.support.y
    fixed = text_tensors(task, config.text, method=METHOD.name)
    keys, anchors = task.support.mean_of_views(raw=config.variant == "code"), fixed["anchors"]
    kept = kept_channels(config.channels, keys.shape[1], method=METHOD.name)
    chosen = best_channels(similarity(keys, labels, anchors), anchors, hyper.omega, kept)
    params = {"residual": keys.new_zeros(task.c, kept), "weight": keys.new_ones(len(keys))}
    return params, fixed | {"keys": keys, "labels": labels, "chosen": chosen}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two products of (2), once for the whole alpha-beta grid.

    A key's residual is its class's, so x R'^T is computed once a class.
    """
    x = rows.x
    moved = params["residual"] @ x[:, fixed["chosen"]].mT  # [c n]
    affinity = fixed["keys"] @ x.mT + moved[fixed["labels"]]  # [m n], see `sum_by_label`
    return {
        "text": fixed["scale"] * (x @ fixed["anchors"].mT + moved.mT) + fixed["bias"],  # [n c]
        "distance": 1 - affinity.mT,  # [n m]
        "weight": params["weight"],  # [m]
    }


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (2)."""
    votes = terms["weight"] * torch.exp(-hyper.beta * terms["distance"])  # [n m]
    return with_votes(terms["text"], votes, fixed["labels"], hyper.alpha)


METHOD = Method(
    name="ape-t",
    summary="A trained residual a class for its text and its keys, on chosen channels.",
    source="released code: Zhu et al. 2023, arXiv:2304.01195",
    needs=shots_with_views,
    stages=lambda config: one_stage(
        loss=cross_entropy_of(terms, combine),
        batches=shuffled(config.batch),
        update=adamw(eps=1e-3, weight_decay=0.1, schedule="cosine"),
        keep="best-val",
    ),
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid({"beta": evenly(0.1, 7, 200), "alpha": evenly(0.1, 7, 20)}),
    holds=("keys",),
)
