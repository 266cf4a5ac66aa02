"""FAIR-style self-training: what the crops of unlabelled images say is learned for whole images.

    v      = normalise(sum_i a_i p_i), by `teacher`:                                      (1)
             confidence  a = softmax_i(sharpness max_c p_i . A_c)
             mean        a = 1 / k
             weighted    a = softmax_i(p_i . g / tau) over the `keep` most relevant regions
             neighbours  of weighted, then normalise((1 - lean) v + lean m)
    LAS    = s v A^T,   A's rows normalised                  the learned alignment score (2)
    FIX    = s v Z^T,   Z_c = normalise(sum_j (T_j . t_c) T_j) over the descriptions of c (3)
    guess, omega = the pseudo-label by (1 - gamma) LAS + gamma FIX, and how far it is
             trusted, in [0, 1]: (1) and (2) of `heads.ops.pseudo_labels`                 (4)

    student=discriminant, in closed form, by (1) to (4) at A = A0:

    W, b   = log posterior of Gaussian classes with one shrunk covariance, of x, g and u of
             every pool image, each with its guess and weight max(omega, 1e-6)            (5)
    logits = x W^T + b + fuse (s x A0^T + b0)                                             (6)

    student=anchors, trained from A = A0, followed by (1) to (4):

    loss   = mean omega CE(s u A^T, guess) - lam / mu mean_c log q_c                      (7)
    q      = mu mean softmax(s u A^T) + (1 - mu) q_before, the first summand trained      (8)
    logits = s x A^T + b0                                                                 (9)

    p [k d] crops of a pool image      g [d] its weak view      u [d] its strong views
    A [c d] class anchors, from A0 = normalise(mean_j T_j)      T [m d] descriptions
    t_c [d] the class's template       x [d] a row              s, b0 logit scale and bias
    m [d] mean of the pool images closest to the image, itself left out

(1) to (4) pass no gradient on; all rows are unit. With `infer=las` v stands for x in (6) or (9),
with `average` the mean of both logits answers.

No label is read: pool rows come without, and there is no support. The second part of (7), the
fairness regulariser, keeps the anchors from collapsing into a few classes; (5) has equal priors.

Reference: Ali et al., FAIR: fine-grained alignment by class description anchors, WACV 2026,
arXiv:2507.09615.
Source: reconstruction; abstract read, body not, and no code was found. `student=anchors
teacher=weighted` is the reconstruction: from the abstract description anchors as an adaptive
classifier, local crops, self-training with a weight against ambiguous classes; from released code
WCA (1), whose tau is 1 / 54.6, and microCLIP @977ad31 of the same authors, whose tau is 1; (3),
gamma, (7), (8) and the optimiser microCLIP; agreement DPA @7435c94. That the most relevant crops
are kept is said in a survey of the paper. None of the weights is confirmed.
Differs from the paper: (5) and (6), the teachers confidence, mean and neighbours, and
`regions=patches` are ours. The encoder stays frozen, where the code of this family trains its
LayerNorms too. Crops and views are drawn from cached ones. The learning rate falls to 0, not to
2e-6; at the first step of an epoch q_before is the batch's own mean. Defaults were chosen on
validation rows of fieldguide, with the labels of its training rows in view.
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
from heads.contract.linear import Linear, of_cosines, of_solved
from heads.contract.method import Method, Need, Watched
from heads.contract.rows import Batch, Kind, Rows, TaskView, Tensors
from heads.contract.settings import number
from heads.contract.stages import Stage, one_stage
from heads.ops.algebra import cosine_logits, is_class, weighted_mean
from heads.ops.attention import pool_closest, pool_confident
from heads.ops.discriminant import log_posterior
from heads.ops.neighbours import mean_of_neighbours
from heads.ops.pseudo_labels import Weighting, balance, pseudo_labels
from heads.training.optim import adamw
from heads.training.samplers import pool

Teacher = Literal["confidence", "mean", "weighted", "neighbours"]
REGIONS = {"crops": Kind("crops", "fair"), "patches": Kind("patches")}
CHUNK = 256
"""Pool images whose regions are read at a time."""
LEAST = 1e-6
"""Least weight of a pool image in (5): a class of doubtful guesses alone keeps its mean."""
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
    teacher: Teacher = "confidence"
    """What (1) is made of: all regions by how sure each is, or alike; those closest to the image;
    or these and the pool images closest to it."""
    student: Literal["discriminant", "anchors"] = "discriminant"
    """What learns from the pseudo-labels: (5) in closed form, or the anchors by (7)."""
    neighbours: int = number(5, low=1)
    """Pool images closest to each, for `teacher=neighbours`."""
    weighting: Weighting = "agreement"
    """How far a pseudo-label is trusted."""
    infer: Literal["global", "las", "average"] = "global"
    """What the student reads of a query: the image, its regions by (1), or both; all but global
    need regions of the queries."""
    crops: int = number(8, low=1)
    """Crops drawn of each image in a step of `student=anchors`; patches always come whole."""
    keep: float = number(0.5, above=0.0, high=1.0)
    """Share of the regions kept by `teacher=weighted` and `neighbours`."""
    epochs: int = number(15, low=0)
    """Passes over the pool of `student=anchors`; 0 leaves the start, the texts alone."""
    batch: int = number(64, low=1)
    """Images of a step of `student=anchors`."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(3e-3, above=0.0)
    """AdamW's step size at the start, for `student=anchors`; falls to 0 as a cosine."""
    lam: float = number(1.0, low=0.0)
    """Weight of the fairness regulariser, for `student=anchors`."""
    mu: float = number(0.5, above=0.0, high=1.0)
    """Share of the batch in the running mean; 1 is the batch alone, as in DPA."""
    fuse: float = number(0.1, low=0.0)
    """Weight of the start's logits beside the discriminant; 0 leaves the discriminant alone."""
    sharpness: float = number(50.0, low=0.0, prepare=True)
    """How far the surest regions of `teacher=confidence` outweigh the others; 0 is the mean."""
    tau: float = number(1.0, above=0.0, prepare=True)
    """Temperature of relevance; large weighs the kept regions alike. WCA has 1 / 54.6."""
    gamma: float = number(0.0, low=0.0, high=1.0, prepare=True)
    """Share of the fixed score in the pseudo-label; microCLIP has 0.5."""
    lean: float = number(0.5, low=0.0, high=1.0, prepare=True)
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
    """Train the anchors, if they are the student."""
    if config.student == "discriminant":
        return ()
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
    """Start from the mean of each class's descriptions, and solve (5) if it is the student.

    Raises:
        MissingComponentError: If the data set has no such texts.
        UsageError: If `teacher=neighbours` finds one image.
    """
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
        if len(task.pool) < 2:
            raise UsageError(
                "fair's teacher=neighbours reads other images of the pool, and it has one image; "
                "add images, or use ",
                Setting("teacher", "confidence"),
                ".",
            )
        fixed["near"] = mean_of_neighbours(task.pool.x, config.neighbours)
    if config.student == "discriminant":
        assert task.pool is not None
        return {}, solve(task.pool, fixed, config, hyper)
    return {"learned": fixed["anchors"].clone()}, fixed


def solve(pool: Rows, fixed: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Solve (5) from the guesses of (4) at the start, with every crop and view of the pool."""
    count, parts = len(pool), []
    for first in range(0, count, CHUNK):  # regions are many times as large as the rest
        index = torch.arange(first, min(first + CHUNK, count), device=pool.x.device)
        some = pool.take(index)
        _, guess, trust = labelled(some, index, fixed["anchors"], fixed, config, hyper)
        views = [some.get("views", recipe) for recipe in ("weak", "strong")]
        seen = [some.x[:, None], *(v for v in views if v is not None)]
        parts.append((torch.cat(seen, dim=1), guess, trust))
    rows, guess, trust = (torch.cat(part) for part in zip(*parts, strict=True))
    each, classes = rows.shape[1], len(fixed["anchors"])
    weight, offset = log_posterior(
        rows.flatten(0, 1),
        guess.repeat_interleave(each),
        classes,
        trust.clamp_min(LEAST).repeat_interleave(each),
    )
    learned = {"weight": weight.to(rows), "offset": offset.to(rows), "start": fixed["anchors"]}
    share = torch.bincount(guess, minlength=classes).to(rows) / count
    watched = {"balance": balance(share), "trust": trust.mean()}
    return learned | watched | {n: fixed[n] for n in ("scale", "bias")}


def labelled(
    some: Rows,
    index: Int64[Tensor, " n"],
    anchors: Float[Tensor, "c d"],
    fixed: Tensors,
    config: Config,
    hyper: Hyper,
) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """Return v, guess and omega of some pool images, (1) to (4).

    Args:
        some: The images.
        index: Their positions in the pool.
        anchors: A, of any length.
        fixed: s, Z and neighbours.
        config: The settings.
        hyper: The numbers.
    """
    weak, scale = some.get("views", "weak"), fixed["scale"]
    g = some.x if weak is None else weak[:, 0]
    near = fixed["near"][index] if "near" in fixed else None
    v = teach(regions_of(some, config), g, anchors, near, config, hyper)
    las, fix = scale * cosine_logits(v, anchors), scale * v @ fixed["fixed"].mT
    return v, *pseudo_labels(las, fix, anchors, config.weighting, hyper.gamma)


def teach(
    regions: Float[Tensor, "n k d"],
    g: Float[Tensor, "n d"],
    anchors: Float[Tensor, "c d"],
    near: Float[Tensor, "n d"] | None,
    config: Config,
    hyper: Hyper,
) -> Float[Tensor, "n d"]:
    """Equation (1).

    Args:
        regions: p.
        g: Weak views, or the images.
        anchors: A, of any length.
        near: m, for pool images of `teacher=neighbours`.
        config: The settings.
        hyper: The numbers.
    """
    if config.teacher == "mean":
        return F.normalize(regions.mean(-2), dim=-1)
    if config.teacher == "confidence":
        return pool_confident(regions, F.normalize(anchors, dim=-1), hyper.sharpness)
    v = pool_closest(regions, g, config.keep, hyper.tau)
    return v if near is None else F.normalize((1 - hyper.lean) * v + hyper.lean * near, dim=-1)


def regions_of(rows: Rows, config: Config) -> Float[Tensor, "n k d"]:
    """Return the crops or patches that the equations speak of."""
    regions = rows.get(*REGIONS[config.regions])
    assert regions is not None
    return regions


def start(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Begin with an empty running mean, and nothing counted of the epoch."""
    counts = fixed["anchors"].new_zeros(len(fixed["anchors"]))
    zero = counts.new_zeros(())
    begun = {"epoch": zero - 1, "log_mean": counts, "guessed": counts, "balance": zero + 1}
    return begun | dict.fromkeys(("moved_rows", "trust_sum", "moved", "trust"), zero)


def loss(
    params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> tuple[Tensor, Tensors]:
    """Equation (7)."""
    anchors, strong = params["learned"].detach(), batch.get("views", "strong")
    assert strong is not None
    v, guess, trust = labelled(batch, batch.index, anchors, fixed, config, hyper)

    student = fixed["scale"] * cosine_logits(strong[:, 0], params["learned"])
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

    balance falls where training collapses. moved is the share of guesses that the anchors did not
    make at their start, trust the mean of omega.
    """
    rows = counted["guessed"].sum()
    return counted | {
        "balance": balance(counted["guessed"] / rows),
        "moved": counted["moved_rows"] / rows,
        "trust": counted["trust_sum"] / rows,
    }


def notes(watched: Sequence[Watched]) -> list[str]:
    """Warn of a collapse: guesses spread over few classes, or over fewer and fewer."""
    told = []
    for one in watched:
        series = one.get("balance", ())
        if series and series[-1] < max(FEW, NARROWED * max(series)):
            spread = f"the pseudo-labels are spread over {100 * series[-1]:.0f} % of the classes"
            if "moved" in one:  # of every epoch: the anchors were trained
                told.append(
                    f"Training may have collapsed: {spread}, {100 * max(series):.0f} % at best. "
                    f"Try a larger lam, such as 2, or a smaller lr."
                )
            else:
                told.append(f"Few classes were learned: {spread}. Try another kind of text.")
    return told


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """The cosines with the anchors, and the discriminant, of what `infer` asks for."""
    x, read = rows.x, {}
    anchors = params["learned"] if config.student == "anchors" else fixed["start"]
    if config.infer != "las":
        read["global"] = x
    if config.infer != "global":
        read["las"] = teach(regions_of(rows, config), x, anchors, None, config, hyper)
    found = {f"text {kind}": cosine_logits(row, anchors) for kind, row in read.items()}  # [n c]
    if config.student == "discriminant":
        for kind, row in read.items():
            found[f"student {kind}"] = of_solved(fixed).logits(row)
    return found


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (6) or (9), the mean of both kinds of rows for `infer=average`."""

    def mean(of: str) -> Tensor:
        return torch.stack([t for n, t in terms.items() if n.startswith(of)]).mean(0)

    text = fixed["scale"] * mean("text") + fixed["bias"]
    return text if config.student == "anchors" else mean("student") + hyper.fuse * text


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear | None:
    """Equation (6) or (9) of global features alone."""
    if config.infer != "global":
        return None
    if config.student == "anchors":
        return of_cosines(fixed, params["learned"])
    return of_solved(fixed).plus(of_cosines(fixed, fixed["start"]), hyper.fuse)


METHOD = Method(
    name="fair",
    version=2,
    summary="Class descriptions label unlabelled images crop by crop, a student learns; no shots.",
    source="reconstruction, hyper-parameters ours: Ali et al. 2026, arXiv:2507.09615",
    needs=needs,
    stages=stages,
    prepare=prepare,
    terms=terms,
    combine=combine,
    notes=notes,
    training_only=("anchors", "fixed", "near", "balance", "trust"),
    linear=linear,
    watch=("balance", "trust"),
)
