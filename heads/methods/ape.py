"""APE: a cache of the shots on chosen channels, whose shots count by how far the texts miss them.

    J      = -omega S + (1 - omega) V                                      (1)
    logits = s x T^T + b + alpha exp(-beta (1 - x_Q K_Q^T)) diag(exp(gamma D)) Y    (2)
    D_i    = log2((1 + e) / (p_i + e)),  p_i = softmax(k_iQ T_Q^T) at i's own class (3)

    x [n d] query rows, unit      T [c d] class anchors, unit      s, b logit scale and bias
    K [m d] support rows (keys)   Y [m c] one-hot labels           e = 1e-6
    S [d]  mean over pairs of rows of different classes, texts and keys alike, of the product in
           each channel           V [d] variance of the texts in each channel
    Q      the channels of largest J; x_Q, K_Q, T_Q are made unit again in them

(3) is the divergence of the label from what the texts say of the key, without a logit scale, so p
is close to 1 / c and the weight almost the same for every key.

Reference: Zhu et al., Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior
Refinement, ICCV 2023, arXiv:2304.01195.
Source: released code @20258ec; the paper's body was not read.
Differs from the paper: its texts are templates and CuPL sentences together; ours are what `text`
says. The number of channels, omega and the grid are set per data set in the released code; here the
share is Caltech101's 800 of 1024, omega and the ends of alpha's and beta's grid are ImageNet's, and
gamma has every second value. S is a closed form of the released four loops.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, evenly, number
from heads.ops.algebra import affinities, with_votes
from heads.ops.ape_criterion import best_channels, kept_channels, similarity

SMALL = 1e-6
"""e of (3)."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    channels: int = number(0, low=0)
    """Channels kept; 0 keeps 25 of 32, as the released 800 of 1024."""
    variant: Literal["code", "paper"] = "code"
    """How cached views make a key: `code` averages raw features, `paper` unit ones."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(1.0, low=0.0, logits="affine")
    """Weight of the cache term; 0 gives zero-shot."""
    beta: float = number(1.0, low=0.0, logits="smooth")
    """Sharpness of the affinity; larger trusts only near keys."""
    gamma: float = number(0.1, low=0.0, logits="smooth")
    """How much more a key counts that the texts miss; 0 counts all alike."""
    omega: float = number(0.7, low=0.0, high=1.0, prepare=True)
    """Weight of the classes' similarity in (1); the texts' variance has the rest."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Choose the channels, and memorise the shots in them."""
    labels = task.support.y
    fixed = text_tensors(task, config.text, method=METHOD.name)
    keys, anchors = task.support.mean_of_views(raw=config.variant == "code"), fixed["anchors"]
    kept = kept_channels(config.channels, keys.shape[1], method=METHOD.name)
    chosen = best_channels(similarity(keys, labels, anchors), anchors, hyper.omega, kept)
    keys_q, anchors_q = (F.normalize(rows[:, chosen], dim=-1) for rows in (keys, anchors))
    p = (keys_q @ anchors_q.mT).softmax(-1).gather(1, labels[:, None])[:, 0]
    memory = {"keys": keys_q, "labels": labels, "chosen": chosen}
    return {}, fixed | memory | {"missed": torch.log2((1 + SMALL) / (p + SMALL))}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two products of (2), once for the whole grid."""
    x_q = F.normalize(rows.x[:, fixed["chosen"]], dim=-1)
    distance = 1 - affinities(x_q, fixed["keys"])
    return {"text": zero_shot_logits(fixed, rows.x), "distance": distance}  # [n c], [n m]


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (2)."""
    votes = torch.exp(hyper.gamma * fixed["missed"] - hyper.beta * terms["distance"])  # [n m]
    return with_votes(terms["text"], votes, fixed["labels"], hyper.alpha)


METHOD = Method(
    name="ape",
    summary="Tip-Adapter on chosen channels, with weighted shots; training-free.",
    source="released code: Zhu et al. 2023, arXiv:2304.01195",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid(
        {"gamma": evenly(0, 1, 10), "beta": evenly(0.1, 7, 200), "alpha": evenly(0.1, 7, 20)}
    ),
    holds=("keys",),
)
