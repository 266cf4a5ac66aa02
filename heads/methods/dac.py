"""DAC: a cache of the shots seen through a trained adapter, and class texts tuned beside it.

    h(x)    = normalise(x H^T),  H = I + W                                 (1)
    L_intra = -mean_b 1/|P(b)| sum_{p in P(b)} log( exp(h_b . h_p / tau)
              / sum_{a != b} exp(h_b . h_a / tau) ) + l2 |W|^2 / shots     (2)
    G       = h(F), kept from here on                                      (3)
    logits  = s x normalise(T')^T + b + alpha exp(-beta (1 - h(x) G^T)) Y  (4)
    L_inter = CE(logits with the row's own key left out, y)
              + l2_text |T' - T0|^2 / shots                                (5)

    x [n d] rows, unit            W [d d] adapter, trained in stage 1, starts at 0 (H = I)
    F [m d] support rows          Y [m c] their one-hot labels      s, b logit scale and bias
    T' [c d] class texts, trained in stage 2, start at the anchors T0 [c d]
    P(b)    the other rows of b's class in the batch, augmented views of the same image among them

Stage 1 alone is DAC-V (T' = T0), both are DAC-VT; alpha and beta are searched between the two and
once more at the end. T' is T0 (I + M) with one map M for all classes (`modulation=map`), trained
itself (`direct`), or T0 + X / 2 (`residual`).

Reference: Gondal et al., Domain Aligned CLIP for Few-shot Classification, WACV 2024,
arXiv:2311.09191.
Source: reconstruction; the abstract read, body not, and no released code was found. Theirs: a
light adapter trained by an intra-modal contrastive objective, and modulated precomputed class
texts. Ours: the equations, which are those of the Tip-Adapter family, supervised contrastive
learning (Khosla et al., arXiv:2004.11362, eq. 2) as the objective, and every value.
Differs from the paper: unknown in detail; the L2 penalties on the change are ours. In (5) an image
does not see its own key, which would answer for it: it is masked, or with
`affinity=view-disjoint` made of the other views. The default values were chosen on held-out shots
and validation rows, never on test rows.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import ConvergenceWarning
from heads.class_texts import text_tensors
from heads.contract.method import SHOTS_WITH_VIEWS, SUPPORT_AND_QUERY, Method, Need
from heads.contract.rows import Batch, Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.contract.stages import Stage, stateless
from heads.ops.algebra import affinities, cosine_logits, cross_entropy, weighted_mean, with_votes
from heads.ops.contrastive import contrast
from heads.training.optim import adamw
from heads.training.samplers import balanced, shuffled

RESIDUAL = 0.5
"""Weight of X in T0 + X / 2, as TaskRes has it."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    stage: Literal["v", "vt"] = "vt"
    """v trains the adapter alone, vt the class texts after it."""
    modulation: Literal["map", "direct", "residual"] = "map"
    """What of the class texts is trained: one map of all, they themselves, or an addend."""
    affinity: Literal["leave-one-out", "leave-one-out-or-text", "view-disjoint"] = "leave-one-out"
    """What stands for a training row's own key: nothing, or the mean of its other views. With
    `leave-one-out-or-text` a row whose class has no other key is trained without any."""
    steps: int = number(200, low=0)
    """Steps of stage 1, whatever the number of shots."""
    steps_text: int = number(100, low=0)
    """Steps of stage 2."""
    classes: int = number(64, low=2)
    """Classes of a batch of stage 1, fewer where there are fewer."""
    each: int = number(4, low=1)
    """Images of a class in a batch of stage 1, each in two views."""
    batch: int = number(256, low=1)
    """Rows of a batch of stage 2."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(1e-3, above=0.0)
    """AdamW's step size for W at the start; falls to 0 as a cosine."""
    tau: float = number(0.1, above=0.0)
    """Temperature of (2); smaller looks at the nearest rows only."""
    l2: float = number(0.1, low=0.0)
    """Weight of the L2 penalty on H - I, divided by the shots."""
    lr_text: float = number(1e-3, above=0.0)
    """AdamW's step size for the texts at the start; falls to 0 as a cosine."""
    l2_text: float = number(0.1, low=0.0)
    """Weight of the L2 penalty on T' - T0, divided by the shots."""
    alpha: float = number(1.0, low=0.0, logits="affine")
    """Weight of the cache term; 0 with T' = T0 gives zero-shot."""
    beta: float = number(5.5, low=0.0, logits="smooth")
    """Sharpness of the affinity; larger trusts only near keys."""


def needs(config: Config) -> frozenset[Need]:
    """Support rows and their augmented views, which `affinity=view-disjoint` cannot do without."""
    if config.stage == "vt" and config.affinity == "view-disjoint":
        return SUPPORT_AND_QUERY | {Need(role="support", kind="views", recipe="rrc50", at_least=2)}
    return SHOTS_WITH_VIEWS


def stages(config: Config) -> tuple[Stage, ...]:
    """Train the adapter, freeze its keys, search; then train the texts beside them."""
    adapter = Stage(
        trains=frozenset({"map"}),
        loss=contrastive_loss,
        batches=balanced(config.classes, config.each, views=2),
        update=adamw("lr", eps=1e-4, weight_decay=0.0, schedule="cosine"),
        leave=freeze_keys,
        search=True,
    )
    texts = Stage(
        trains=frozenset({"text"}),
        loss=fused_loss,
        batches=shuffled(config.batch),
        steps=lambda sizes, config: config.steps_text,
        update=adamw("lr_text", eps=1e-4, weight_decay=0.0, schedule="cosine"),
    )
    return (adapter,) if config.stage == "v" else (adapter, texts)


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at Tip-Adapter: H = I, the shots as keys, the anchors as texts."""
    rows, labels = task.support, task.support.y
    views = rows.get("views")
    counts = torch.bincount(labels, minlength=task.c)
    if views is None and int(counts.max()) < 2:
        warnings.warn(
            f"On {len(labels)} images, one a class and without views, dac keeps its adapter at the "
            f"identity: no two rows show the same class.",
            ConvergenceWarning,
            stacklevel=2,
        )
    fixed = text_tensors(task, config.text, method=METHOD.name)
    fixed |= {"keys": rows.mean_of_views(), "labels": labels}
    fixed["shots"] = rows.x.new_tensor(len(labels) / task.c)
    fixed["has_others"] = (counts[labels] > 1).to(rows.x)
    if views is not None:
        fixed["views_sum"] = views.sum(1)
    anchors, d = fixed["anchors"], rows.x.shape[1]
    text = {
        "direct": anchors.clone(),
        "residual": torch.zeros_like(anchors),
        "map": anchors.new_zeros(d, d),
    }
    return {"map": rows.x.new_zeros(d, d), "text": text[config.modulation]}, fixed


def adapt(params: Tensors, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Equation (1)."""
    return F.normalize(x + x @ params["map"].mT, dim=-1)


@stateless
def contrastive_loss(
    params: Tensors, fixed: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> Tensor:
    """Equation (2)."""
    same_image = batch.index[:, None] == batch.index
    same_view = batch.view[:, None] == batch.view
    others = ~(same_image & same_view) & (batch.weights > 0)  # not itself, nor padding
    each = contrast(adapt(params, batch.x), others, batch.y, hyper.tau)
    held = params["map"].square().sum() * hyper.l2 / fixed["shots"]
    return weighted_mean(each, batch.weights) + held


def freeze_keys(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Equation (3)."""
    return fixed | {"keys": adapt(params, fixed["keys"])}


@stateless
def fused_loss(
    params: Tensors, fixed: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> Tensor:
    """Equation (5)."""
    both = terms(params, fixed, batch, config, hyper)
    own = batch.index[:, None] == torch.arange(len(fixed["labels"]), device=batch.x.device)
    votes = torch.exp(-hyper.beta * (1 - both["affinity"]))
    if config.affinity == "view-disjoint":
        rest = adapt(params, F.normalize(fixed["views_sum"][batch.index] - batch.x, dim=-1))
        closeness = (adapt(params, batch.x) * rest).sum(-1, keepdim=True)
        votes = torch.where(own, torch.exp(-hyper.beta * (1 - closeness)), votes)
    else:
        votes = votes.masked_fill(own, 0.0)
    if config.affinity == "leave-one-out-or-text":
        votes = votes * fixed["has_others"][batch.index][:, None]
    logits = with_votes(both["text"], votes, fixed["labels"], hyper.alpha)
    value = cross_entropy(logits, batch.y, batch.weights)
    moved = (class_texts(params, fixed, config) - fixed["anchors"]).square().sum()
    return value + hyper.l2_text * moved / fixed["shots"]


def class_texts(params: Tensors, fixed: Tensors, config: Config) -> Float[Tensor, "c d"]:
    """Return T', not yet unit."""
    anchors = fixed["anchors"]
    if config.modulation == "direct":
        return params["text"]
    if config.modulation == "residual":
        return anchors + RESIDUAL * params["text"]
    return anchors + anchors @ params["text"]


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two products of (4), once for the whole alpha-beta grid."""
    texts = class_texts(params, fixed, config)
    text = fixed["scale"] * cosine_logits(rows.x, texts) + fixed["bias"]  # [n c]
    return {"text": text, "affinity": affinities(adapt(params, rows.x), fixed["keys"])}  # [n m]


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (4)."""
    votes = torch.exp(-hyper.beta * (1 - terms["affinity"]))  # [n m]
    return with_votes(terms["text"], votes, fixed["labels"], hyper.alpha)


METHOD = Method(
    name="dac",
    summary="A cache of the shots behind a contrastive adapter, then class texts tuned beside it.",
    source="reconstruction, equations and values ours: Gondal et al. 2024, arXiv:2311.09191",
    needs=needs,
    stages=stages,
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid(
        {"beta": [1.0, 2.0, 4.0, 5.5, 8.0, 12.0, 16.0], "alpha": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]}
    ),
    training_only=("shots", "has_others", "views_sum"),
    holds=("keys",),
)
