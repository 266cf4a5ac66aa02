"""CMM: a linear map of image features and trained class texts, fused with the zero-shot branch.

    u      = normalise(x + x W)                                            (1)
    logits = s x T0^T + b + alpha s u normalise(T)^T                       (2)
    L      = mean_i max(0, u_i . t_neg - u_i . t_y + margin)               (3)
    loss   = CE(logits, y) + lam L
             + (l2 |W - W0|^2 + l2_text |T - T0|^2) / shots                (4)
    answer = logits + weight (1 + alpha) r g(x)                            (5)

    x [n d] rows, unit            T0 [c d] class anchors, unit     s, b logit scale and bias
    W [d d] map, trained, starts at W0 = 0 (u = x)
    T [c d] class texts, trained, start at T0
    t_neg   of the wrong classes' texts the one closest to u_i, chosen anew at every step
    g       the Gaussian discriminant of the shots, (1) and (2) of `heads.ops.discriminant`
    r       root mean square of s x T0^T over that of g, of the shots and about each row's mean

At the start the logits are (1 + alpha) times the zero-shot ones (b aside). The switches leave out
a part: `train_map`, `train_text`, `triplet` (3), `fusion` (the first two summands of (2), and the 1
of (5)), `discriminant` (5). The loss does not see (5).

Reference: Yang et al., Cross-Modal Mapping: Mitigating the Modality Gap for Few-Shot Image
Classification, arXiv:2412.20110.
Source: reconstruction; abstracts and figures read, body not. Theirs: the map, the trained texts,
the triplet with the closest wrong text, the fused logits, cross-entropy on them. Ours: the residual
form, both scales s, cosine distance in (3), the weighted sum (4) and every value.
Differs from the paper: the L2 penalties on the change, without which the map overfits at few shots,
the discriminant (5), which the paper does not have (`discriminant=false` is without), and the
closed-form starts `init=ridge` and `init=procrustes` are ours. alpha is 1 in training
unless set, and searched afterwards. The default values were chosen on held-out shots and validation
rows, never on test rows.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.linear import Linear, of_anchors, of_solved
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Batch, Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.contract.stages import Stage, one_stage, stateless
from heads.ops.algebra import cosine_logits, cross_entropy, weighted_mean
from heads.ops.alignment import procrustes_map, ridge_map
from heads.ops.contrastive import triplet
from heads.ops.discriminant import discriminant
from heads.training.optim import adamw
from heads.training.samplers import shuffled


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    init: Literal["identity", "ridge", "procrustes"] = "identity"
    """Where x + x W starts: at x, or at the closed-form map of the shots onto their texts."""
    train_map: bool = True
    """Train W."""
    train_text: bool = True
    """Train T."""
    triplet: bool = True
    """Add (3) to the loss."""
    fusion: bool = True
    """Add the zero-shot logits; without them alpha changes no answer."""
    discriminant: bool = True
    """Add (5) once the map and the texts are trained."""
    steps: int = number(200, low=0)
    """Steps of training, whatever the number of shots."""
    batch: int = number(256, low=1)
    """Rows of a step."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(3e-3, above=0.0)
    """AdamW's step size at the start; falls to 0 as a cosine."""
    lam: float = number(10.0, low=0.0)
    """Weight of the triplet loss."""
    margin: float = number(0.1, low=0.0, high=2.0)
    """By how much the own text should be closer, in cosine."""
    alpha: float = number(1.0, low=0.0, logits="affine")
    """Weight of the mapped branch; 0 gives zero-shot."""
    weight: float = number(0.3, low=0.0)
    """Weight of the discriminant beside the logits of (2); 0 leaves it out."""
    l2: float = number(0.1, low=0.0)
    """Weight of the L2 penalty on W - W0, divided by the shots."""
    l2_text: float = number(0.1, low=0.0)
    """Weight of the L2 penalty on T - T0, divided by the shots."""
    ridge: float = number(1.0, above=0.0, prepare=True)
    """Weight of the identity in `init=ridge`, times the shots."""
    beta: float = number(0.0, low=0.0, high=1.0, prepare=True)
    """Share of the identity in `init=procrustes`, as in lfa; 0 is the rotation alone."""


def stages(config: Config) -> tuple[Stage, ...]:
    """Train the map and the texts together."""
    trains = {"map": config.train_map, "text": config.train_text}
    if not any(trains.values()):
        return ()
    return one_stage(
        trains=frozenset(part for part, trained in trains.items() if trained),
        loss=loss,
        batches=shuffled(config.batch),
        update=adamw(eps=1e-4, weight_decay=0.01, schedule="cosine"),
    )


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at zero-shot, or at a closed-form map of the shots onto their texts."""
    labels = task.support.y
    fixed = text_tensors(task, config.text, method=METHOD.name)
    x, anchors = task.support.mean_of_views(), fixed["anchors"]
    d = x.shape[1]
    if config.init == "identity":
        start = x.new_zeros(d, d)
    elif config.init == "ridge":
        start = ridge_map(x, anchors[labels], hyper.ridge * len(x) / task.c)
    else:
        start = (1 - hyper.beta) * procrustes_map(x, anchors[labels])
    fixed["start"] = start
    fixed["shots"] = x.new_tensor(len(x) / task.c)
    if config.discriminant:
        fixed |= gaussian(task.support, anchors, fixed["scale"])
    return {"map": start.clone(), "text": anchors.clone()}, fixed


def gaussian(support: Rows, anchors: Float[Tensor, "c d"], scale: Tensor) -> Tensors:
    """Solve g of (5) in float64, and multiply it by r; zeros where the rows have no scatter."""
    each = support.each_view()
    solved = discriminant(each.x, each.y, len(anchors), each.weights)
    weight, offset = (t.to(support.x) for t in solved)
    text = spread(scale * support.x @ anchors.mT)
    image = spread(support.x @ weight.mT + offset)
    ratio = text / torch.where(image > 0, image, 1)
    return {"weight": ratio * weight, "offset": ratio * offset}


def spread(logits: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Return the root mean square of logits about the mean of their row."""
    return (logits - logits.mean(-1, keepdim=True)).square().mean().sqrt()


@stateless
def loss(params: Tensors, fixed: Tensors, batch: Batch, config: Config, hyper: Hyper) -> Tensor:
    """Equation (4)."""
    both = text_side(params, fixed, batch)
    value = cross_entropy(fused(both, config, hyper), batch.y, batch.weights)
    if config.triplet:
        hinge = triplet(both["mapped"] / fixed["scale"], batch.y, hyper.margin)
        value = value + hyper.lam * weighted_mean(hinge, batch.weights)
    moved_map = (params["map"] - fixed["start"]).square().sum()
    moved_text = (params["text"] - fixed["anchors"]).square().sum()
    penalty = hyper.l2 * moved_map + hyper.l2_text * moved_text
    return value + penalty / fixed["shots"]


def text_side(params: Tensors, fixed: Tensors, rows: Rows) -> Tensors:
    """Equation (1) and the two products of (2)."""
    x = rows.x
    mapped = fixed["scale"] * cosine_logits(x + x @ params["map"], params["text"])
    return {"zero_shot": zero_shot_logits(fixed, x), "mapped": mapped}  # [n c]


def fused(both: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (2)."""
    mapped = hyper.alpha * both["mapped"]
    return both["zero_shot"] + mapped if config.fusion else mapped


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the products of (2) and (5), once for the whole grid."""
    both = text_side(params, fixed, rows)
    if not config.discriminant:
        return both
    return both | {"discriminant": of_solved(fixed).logits(rows.x)}  # [n c]


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (5)."""
    logits = fused(terms, config, hyper)
    if not config.discriminant:
        return logits
    return logits + share(config, hyper) * terms["discriminant"]


def share(config: Config, hyper: Hyper) -> float | Tensor:
    """Return what the discriminant is multiplied by in (5)."""
    return hyper.weight * (hyper.alpha + (1.0 if config.fusion else 0.0))


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear | None:
    """Equation (5) where W stays 0; else (1) divides by a length that differs by row."""
    if config.train_map or config.init != "identity":
        return None
    weight = hyper.alpha * fixed["scale"] * F.normalize(params["text"], dim=-1)
    answer = Linear(weight, torch.zeros_like(weight[:, 0]))
    if config.fusion:
        answer = answer.plus(of_anchors(fixed, fixed["anchors"]))
    if config.discriminant:
        answer = answer.plus(of_solved(fixed), share(config, hyper))
    return answer


METHOD = Method(
    name="cmm",
    summary="Linear map and trained texts beside the zero-shot classifier, with a triplet loss.",
    source="reconstruction, hyper-parameters ours: Yang et al. 2024, arXiv:2412.20110",
    needs=shots_with_views,
    stages=stages,
    prepare=prepare,
    terms=terms,
    combine=combine,
    train_grid=Grid({"lr": [1e-3, 3e-3, 1e-2], "lam": [1.0, 10.0]}),
    post_grid=Grid(
        {"weight": [0.0, 0.1, 0.3, 1.0, 3.0], "alpha": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]}
    ),
    version=2,
    training_only=("start", "shots"),
    linear=linear,
)
