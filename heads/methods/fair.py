"""FAIR-style self-training: class description anchors learn from unlabelled images, crop by crop.

    v      = normalise(sum_i a_i p_i),   a = softmax_i(p_i . g / tau) over the `keep` most
             relevant regions; with `teacher=neighbours` normalise((1 - lean) v + lean m)  (1)
    LAS    = s v A^T,   A's rows normalised                  the learned alignment score (2)
    FIX    = s v Z^T,   Z_c = normalise(sum_j (T_j . t_c) T_j) over the descriptions of c (3)
    guess  = argmax_c r_c,   r = (1 - gamma) LAS + gamma FIX            the pseudo-label (4)
    omega  = how far the guess is trusted, in [0, 1]; four candidates (`weighting`)      (5)
             agreement  LAS'_guess FIX'_guess, each the softmax divided by its maximum
             margin     1 - r'_second / r'_guess, r' the softmax of r
             confusion  agreement times 1 - max(0, A_guess . A_second)
             none       1
    loss   = mean omega CE(s u A^T, guess) - lam / mu mean_c log q_c                     (6)
    q      = mu mean softmax(s u A^T) + (1 - mu) q_before, the first summand trained     (7)
    logits = s x A^T + b (`infer=global`), LAS + b (`las`), or their mean (`average`)    (8)

    p [k d] crops of a pool image      g [d] its weak view      u [d] its strong view
    A [c d] class anchors, trained, from A0 = normalise(mean_j T_j)     T [m d] descriptions
    t_c [d] the class's template       x [d] a query row        s, b logit scale and bias
    m [d] mean of the pool images closest to the image, itself left out
    second is the runner-up in r; (1) to (5) pass no gradient on. All rows are unit.

No label is read: pool rows come without, and there is no support. The second part of (6), the
fairness regulariser, keeps the anchors from collapsing into a few classes.

Reference: Ali et al., FAIR: fine-grained alignment by class description anchors, WACV 2026,
arXiv:2507.09615.
Source: reconstruction; abstract read, body not, and no code was found. From the abstract:
description anchors as an adaptive classifier, local crops, self-training with a weight against
ambiguous classes. From released code: (1) WCA, whose tau is 1 / 54.6, and microCLIP @977ad31 of the
same authors, whose tau is 1; (3), gamma, (6), (7) and the optimiser microCLIP; agreement as DPA
@7435c94 weighs by two classifiers. That the most relevant crops are kept is said in a survey of the
paper. margin and confusion are ours; none of the four weights is confirmed.
Differs from the paper: as far as is known. The encoder stays frozen, where the code of this family
trains its LayerNorms too: expect smaller gains. Crops and views are drawn from cached ones. The
learning rate falls to 0, not to 2e-6; it, and tau, were chosen on validation rows of fieldguide,
with the labels of its training rows in view. At the first step of an epoch q_before is the batch's
own mean. `regions=patches` and `teacher=neighbours` are variants of ours; in the second an image
and its neighbours vote on the pseudo-label, as the scores of (2) and (3) are linear in v.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import UsageError
from featcache.keys import TextKind
from featcache.wording import Setting
from heads.class_texts import text_tensors
from heads.contract.linear import Linear, of_cosines
from heads.contract.method import Method, Need, Watched
from heads.contract.rows import Batch, Kind, Rows, TaskView, Tensors
from heads.contract.settings import number
from heads.contract.stages import Stage, one_stage
from heads.ops.algebra import cosine_logits, is_class, weighted_mean
from heads.ops.attention import pool_closest
from heads.ops.neighbours import neighbours
from heads.training.optim import adamw
from heads.training.samplers import pool

REGIONS = {"crops": Kind("crops", "fair"), "patches": Kind("patches")}
FEW, NARROWED = 0.25, 0.8
"""Balance, and share of its best, below which a run is reported as collapsed."""


@dataclass(frozen=True, kw_only=True)
class Config:
    text: TextKind = "description"
    """What the anchors start from."""
    template: Literal["name", "template"] = "template"
    """What (3) weighs descriptions by."""
    regions: Literal["crops", "patches"] = "crops"
    """Cached crops, as in the paper, or patch tokens, which is a variant."""
    teacher: Literal["image", "neighbours"] = "image"
    """What (1) is made of: the regions of the image, or also the pool images closest to it."""
    neighbours: int = number(5, low=1)
    """Pool images closest to each, for `teacher=neighbours`."""
    weighting: Literal["agreement", "margin", "confusion", "none"] = "agreement"
    """Equation (5)."""
    infer: Literal["global", "las", "average"] = "global"
    """Equation (8); all but global read regions of the queries."""
    crops: int = number(8, low=1)
    """Crops drawn of each image in a step; patches always come whole."""
    keep: float = number(0.5, above=0.0, high=1.0)
    """Share of the regions that (1) keeps."""
    epochs: int = number(15, low=0)
    """Passes over the pool."""
    batch: int = number(64, low=1)
    """Images of a step."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(3e-3, above=0.0)
    """AdamW's step size at the start; falls to 0 as a cosine."""
    lam: float = number(1.0, low=0.0)
    """Weight of the fairness regulariser."""
    mu: float = number(0.5, above=0.0, high=1.0)
    """Share of the batch in the running mean; 1 is the batch alone, as in DPA."""
    tau: float = number(1.0, above=0.0)
    """Temperature of relevance; large weighs the kept regions alike. WCA has 1 / 54.6."""
    gamma: float = number(0.0, low=0.0, high=1.0)
    """Share of the fixed score in the pseudo-label; microCLIP has 0.5."""
    lean: float = number(0.5, low=0.0, high=1.0)
    """Share of the neighbours in (1), for `teacher=neighbours`."""


def needs(config: Config) -> frozenset[Need]:
    """Pool rows with regions and strong views, weak ones where there are any; no labelled row."""
    kind, recipe = REGIONS[config.regions]
    read = {
        Need(role="query"),
        Need(role="pool"),
        Need(role="pool", kind=kind, recipe=recipe or None),
        Need(role="pool", kind="views", recipe="strong"),
        Need(role="pool", kind="views", recipe="weak", optional=True),
    }
    if config.infer != "global":
        read.add(Need(role="query", kind=kind, recipe=recipe or None))
    return frozenset(read)


def stages(config: Config) -> tuple[Stage, ...]:
    """Train the anchors."""
    drawn = [(Kind("views", "strong"), 1), (Kind("views", "weak"), 1)]
    if config.regions == "crops":
        drawn.append((REGIONS["crops"], config.crops))
    return one_stage(
        loss=loss,
        batches=pool(config.batch, take=tuple(drawn)),
        update=adamw(weight_decay=0.1, schedule="cosine"),
        start=start,
        watch=("balance", "moved", "trust"),
    )


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start from the mean of each class's descriptions; fix Z of (3), and m of (1), beside it."""
    fixed = text_tensors(task, config.text, method=METHOD.name)
    assert task.text is not None
    texts, owner = (t.to(task.support.x.device) for t in task.text.texts(config.text))
    texts = texts.to(task.support.x)
    templates = task.text.anchors(config.template).to(texts)
    weighed = (texts * templates[owner]).sum(-1, keepdim=True) * texts
    total = torch.zeros_like(templates).index_add(0, owner, weighed)
    fixed["fixed"] = F.normalize(total, dim=-1)
    if config.teacher == "neighbours":
        assert task.pool is not None
        fixed["near"] = mean_of_neighbours(task.pool.x, config.neighbours)
    return {"learned": fixed["anchors"].clone()}, fixed


def mean_of_neighbours(x: Float[Tensor, "n d"], count: int) -> Float[Tensor, "n d"]:
    """Average the rows closest to each row, itself left out; fewer where there are not as many.

    Raises:
        UsageError: If there is one row.
    """
    if len(x) < 2:
        raise UsageError(
            "fair's teacher=neighbours reads other images of the pool, and it has one image; add "
            "images, or use ",
            Setting("teacher", "image"),
            ".",
        )
    _, near = neighbours(x, x, min(count, len(x) - 1), left_out="self")
    total = torch.zeros_like(x)
    for k in range(near.shape[1]):  # not at once: [n k d] would be k times the pool
        total += x[near[:, k]]
    return total / near.shape[1]


def regions_of(rows: Rows, config: Config) -> Float[Tensor, "n k d"]:
    """Return the crops or patches that the equations speak of."""
    regions = rows.get(*REGIONS[config.regions])
    assert regions is not None
    return regions


def pseudo_labels(
    las: Float[Tensor, "n c"],
    fixed: Float[Tensor, "n c"],
    anchors: Float[Tensor, "c d"],
    config: Config,
    hyper: Hyper,
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """Equations (4) and (5): the guesses and how far each is trusted."""
    top, place = ((1 - hyper.gamma) * las + hyper.gamma * fixed).topk(2)
    guess, second = place[:, 0], place[:, 1]
    if config.weighting == "none":
        return guess, torch.ones_like(top[:, 0])
    if config.weighting == "margin":
        return guess, 1 - torch.exp(top[:, 1] - top[:, 0])
    below = [m.gather(-1, guess[:, None])[:, 0] - m.amax(-1) for m in (las, fixed)]
    trust = torch.exp(below[0] + below[1])
    if config.weighting == "confusion":
        alike = F.cosine_similarity(anchors[guess], anchors[second], dim=-1)
        trust = trust * (1 - alike.clamp(0, 1))
    return guess, trust


def start(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Begin with an empty running mean, and nothing counted of the epoch."""
    counts = fixed["anchors"].new_zeros(len(fixed["anchors"]))
    zero = counts.new_zeros(())
    begun = {"epoch": zero - 1, "log_mean": counts, "guessed": counts, "balance": zero + 1}
    return begun | dict.fromkeys(("moved_rows", "trust_sum", "moved", "trust"), zero)


def loss(
    params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> tuple[Tensor, Tensors]:
    """Equation (6)."""
    regions, strong = regions_of(batch, config), batch.get("views", "strong")
    assert strong is not None
    weak = batch.get("views", "weak")
    g = batch.x if weak is None else weak[:, 0]
    v = pool_closest(regions, g, config.keep, hyper.tau)
    if config.teacher == "neighbours":
        v = F.normalize((1 - hyper.lean) * v + hyper.lean * fixed["near"][batch.index], dim=-1)
    scale, anchors = fixed["scale"], params["learned"].detach()
    las = scale * cosine_logits(v, anchors)
    guess, trust = pseudo_labels(las, scale * v @ fixed["fixed"].mT, anchors, config, hyper)

    student = scale * cosine_logits(strong[:, 0], params["learned"])
    log_p = F.log_softmax(student, dim=-1)
    own = log_p.gather(-1, guess[:, None])[:, 0]
    share = batch.weights.log()[:, None] - batch.weights.sum().log()
    log_mean = (log_p + share).logsumexp(0)  # in logarithms: a class may get next to nothing
    fresh = batch.epoch != state["epoch"]
    before = torch.where(fresh, log_mean.detach(), state["log_mean"])
    mu = fixed["scale"].new_tensor(1) * hyper.mu
    log_q = torch.logaddexp(mu.log() + log_mean, (1 - mu).log() + before)
    value = weighted_mean(-trust * own, batch.weights) - hyper.lam / mu * log_q.mean()

    first = (v @ fixed["anchors"].mT).max(-1).indices
    seen = is_class(guess, len(log_q)) * batch.weights[:, None]
    counted = {
        "guessed": seen.sum(0),
        "moved_rows": ((guess != first) * batch.weights).sum(),
        "trust_sum": (trust * batch.weights).sum(),
    }
    after = {n: torch.where(fresh, 0, state[n]) + t for n, t in counted.items()}
    return value, watch(after) | {"epoch": batch.epoch.to(log_q), "log_mean": log_q.detach()}


def watch(counted: Tensors) -> Tensors:
    """Sum up the epoch so far, for the eye.

    balance is how many classes the guesses are spread over, exp of their entropy, as a share of
    all classes: it falls where training collapses. moved is the share of guesses that the anchors
    did not make at their start, trust the mean of omega.
    """
    rows = counted["guessed"].sum()
    share = counted["guessed"] / rows
    spread = torch.exp(-torch.xlogy(share, share).sum())
    return counted | {
        "balance": spread / len(share),
        "moved": counted["moved_rows"] / rows,
        "trust": counted["trust_sum"] / rows,
    }


def notes(watched: Sequence[Watched]) -> list[str]:
    """Warn of a collapse: guesses spread over few classes, or over fewer and fewer."""
    told = []
    for one in watched:
        balance = one.get("balance", ())
        if balance and balance[-1] < max(FEW, NARROWED * max(balance)):
            told.append(
                f"Training may have collapsed: the pseudo-labels are spread over "
                f"{100 * balance[-1]:.0f} % of the classes, {100 * max(balance):.0f} % at best. "
                f"Try --set lam=2, or a smaller --set lr."
            )
    return told


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """The scores that (8) asks for."""
    x, scores = rows.x, {}
    if config.infer != "las":
        scores["global"] = x
    if config.infer != "global":
        scores["las"] = pool_closest(regions_of(rows, config), x, config.keep, hyper.tau)
    return {
        kind: fixed["scale"] * cosine_logits(rows, params["learned"])  # [n c]
        for kind, rows in scores.items()
    }


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (8)."""
    return torch.stack(list(terms.values())).mean(0) + fixed["bias"]


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear | None:
    """Equation (8) of global features alone."""
    return of_cosines(fixed, params["learned"]) if config.infer == "global" else None


METHOD = Method(
    name="fair",
    summary="Description anchors that train themselves on unlabelled images; no shots.",
    source="reconstruction, hyper-parameters ours: Ali et al. 2026, arXiv:2507.09615",
    needs=needs,
    stages=stages,
    prepare=prepare,
    terms=terms,
    combine=combine,
    notes=notes,
    training_only=("anchors", "fixed", "near"),
    linear=linear,
)
