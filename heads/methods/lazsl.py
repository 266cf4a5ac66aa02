"""LaZSL: image regions are matched with the descriptions of a class by optimal transport.

    a     = mass of the crops, by `select`:                                                  (1)
            paper       1 / |kept| where rho_i >= mean(rho), else 0;   rho_i = p_i . g
            confidence  softmax_i(sharpness max_c p_i . T_c)
            all         1 / k
    S_ij  = theta p_i . q_j + (1 - theta) g . q_j                                            (2)
    gamma = argmin <gamma, 1 - S> - reg H(gamma),   gamma 1 = a, gamma^T 1 = 1 / m           (3)
    logit = s sum_ij gamma_ij S_ij                                                           (4)

    g [d] query row, unit           p [k d] its crops, unit      s logit scale
    q [m d] descriptions of one class, unit; m differs between classes
    T [c d] class anchors, the normalised means of q

The scores of three neighbours come from the same tensors (`score`):

    dclip  mean_j g . q_j                                                                    (5)
    wca    cos(sum_i w_i p_i, sum_j w'_j q_j),   w = softmax_i(e^4 p_i . g),
           w' = softmax_j(e^2 q_j . t),   t the class's template                             (6)
    awt    (3) and (4) with theta = 1, the row itself as one more crop, and the marginals
           a = softmax_i(-H_i / 0.5), b = softmax_j(-H'_j / 0.5)                             (7)
           H_i   entropy over classes of the logits of crop i, mean over descriptions
           H'_j  the same of the row itself, the class's own logit taken from q_j alone

Reference: Chen et al., Interpretable Zero-Shot Learning with Locally-Aligned Vision-Language Model,
ICCV 2025, arXiv:2506.23822. dclip: Menon and Vondrick, ICLR 2023, arXiv:2210.07183. wca: Li et al.,
ICML 2024, arXiv:2406.02915. awt: Zhu et al., NeurIPS 2024, arXiv:2407.04603.
Source: released code of LaZSL @c098dc9, of WCA, and of AWT @4e4c28e; dclip as LaZSL's code has it.
The papers' bodies were not read.
Differs from the paper: `select=confidence` is ours. With `select=paper` nothing in (1) to (4) but
float32 throughout, where the released code has float16, and a crop is kept in any case where rho is
largest (equal crops leave none by rounding). wca takes every cached crop once, where its code draws
with replacement. awt takes the cached descriptions, without the bare template, and ends Sinkhorn
for each class by itself.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.keys import TextKind
from heads.class_texts import text_tensors
from heads.contract.linear import Linear
from heads.contract.method import Method, Need
from heads.contract.rows import Rows, TaskView, Tensors, of_texts
from heads.contract.settings import number
from heads.ops.attention import confidence
from heads.ops.entropy_weights import clear_regions, clear_texts
from heads.ops.ragged_transport import Buckets, Solver, match_kept
from heads.ops.sinkhorn import match, pot_match

SHARPNESS_CROPS, SHARPNESS_TEXTS = math.exp(4.0), math.exp(2.0)
"""Exponents of (6), as released."""
TEMPERATURE = 0.5
"""Temperature of (7), as released, for crops and descriptions."""


@dataclass(frozen=True, kw_only=True)
class Config:
    score: Literal["lazsl", "dclip", "wca", "awt"] = "lazsl"
    """Whose score."""
    text: TextKind = "description"
    """What crops are matched with."""
    select: Literal["paper", "confidence", "all"] = "confidence"
    """Which crops have mass (1): those close to the whole image, those sure of a class, or all."""
    solver: Literal["sinkhorn", "pot"] = "sinkhorn"
    """pot solves (3) to the end, in float64 and slowly: a check."""
    max_iter: int = number(100, low=1)
    """Most rounds of Sinkhorn."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    theta: float = number(0.8, low=0.0, high=1.0)
    """Weight of the crop beside the whole image; 0 gives dclip."""
    sharpness: float = number(50.0, low=0.0)
    """How far the surest crops outweigh the others, for `select=confidence`; 0 weighs all alike."""
    reg: float = number(0.1, low=0.025)
    """Weight of the entropy; from 0.025, below which exp(-2 / reg) leaves float32."""
    tol: float = number(0.01, low=0.0)
    """Sinkhorn ends where a round moves the scaling of the crops by less, on average."""


def needs(config: Config) -> frozenset[Need]:
    """Query rows, and their crops for all scores but dclip."""
    rows, crops = Need(role="query"), Need(role="query", kind="crops", recipe="lazsl")
    return frozenset({rows} if config.score == "dclip" else {rows, crops})


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Put classes with about as many descriptions together and pad them to equal numbers."""
    fixed = text_tensors(task, config.text, method=METHOD.name)
    assert task.text is not None
    texts, owner = task.text.texts(config.text)
    texts, owner = texts.to(task.support.x), owner.to(task.support.x.device)
    means = torch.stack([texts[owner == c].mean(0) for c in range(task.c)])
    fixed["anchors"] = F.normalize(means, dim=-1)  # in the type of the rows: (1) is sharp
    if config.score in ("dclip", "awt"):
        fixed["means"] = means
    if config.score == "wca":
        fixed["means"] = template_means(texts, owner, task.text.anchors("template").to(texts))
    if config.score in ("lazsl", "awt"):
        fixed |= Buckets.pack(texts, owner, task.c).tensors()
    return {}, fixed


def template_means(
    texts: Float[Tensor, "m d"], owner: Int64[Tensor, " m"], templates: Float[Tensor, "c d"]
) -> Float[Tensor, "c d"]:
    """Return the text side of (6), unit."""
    means = []
    for c, template in enumerate(templates):
        own = texts[owner == c]
        means.append(torch.softmax(SHARPNESS_TEXTS * own @ template, dim=0) @ own)
    return F.normalize(torch.stack(means), dim=-1)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Score every class, as cosines."""
    x = rows.x
    if config.score == "dclip":
        return {"score": x @ fixed["means"].mT}
    crops = rows.get("crops", "lazsl")
    assert crops is not None
    if config.score == "wca":
        weight = torch.softmax(SHARPNESS_CROPS * closeness(crops, x), dim=-1)
        return {"score": F.normalize((weight[:, None] @ crops)[:, 0], dim=-1) @ fixed["means"].mT}
    if config.score == "awt":
        regions, buckets, scale = (
            torch.cat([x[:, None], crops], 1),
            Buckets.read(fixed),
            fixed["scale"],
        )
        a = clear_regions(scale * regions @ fixed["means"].mT, TEMPERATURE)  # [n k]
        b = clear_texts(x, fixed["means"], buckets, scale, TEMPERATURE)
        return {"score": buckets.match(regions.transpose(0, 1), a.mT, solver(config, hyper), b)}
    return {"score": aligned(fixed, x, crops, config, hyper)}


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Scale cosines to logits."""
    return fixed["scale"] * terms["score"]


def aligned(
    fixed: Tensors,
    x: Float[Tensor, "n d"],
    crops: Float[Tensor, "n k d"],
    config: Config,
    hyper: Hyper,
) -> Float[Tensor, "n c"]:
    """Equations (1) to (4) without the scale."""
    buckets, solve = Buckets.read(fixed), solver(config, hyper)

    def score(x: Tensor, crops: Tensor, a: Tensor, left_out: int = 0) -> Tensor:
        hybrid = (hyper.theta * crops).add_((1 - hyper.theta) * x)  # its products are (2)
        return buckets.match(hybrid, a, solve, left_out=left_out)

    if config.select == "all":
        n, k, _ = crops.shape
        return score(x, crops.transpose(0, 1), crops.new_full((k, n), 1 / k))
    if config.select == "confidence":
        a = confidence(crops, fixed["anchors"], hyper.sharpness)
        return score(x, crops.transpose(0, 1), a.mT)
    rho = closeness(crops, x)
    return match_kept(score, x, crops, rho, selected(rho))


def solver(config: Config, hyper: Hyper) -> Solver:
    """Return what solves (3)."""
    if config.solver == "pot":
        return partial(pot_match, reg=hyper.reg)
    return partial(match, reg=hyper.reg, max_iter=config.max_iter, tol=hyper.tol)


def closeness(crops: Float[Tensor, "n k d"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """Return rho of (1)."""
    return (x[:, None] @ crops.mT)[:, 0]  # as a row: twice as fast as a column


def selected(rho: Float[Tensor, "n k"]) -> Bool[Tensor, "n k"]:
    """Equation (1), paper: mark crops at least as close to the whole image as the average one."""
    return (rho >= rho.mean(-1, keepdim=True)) | (rho == rho.amax(-1, keepdim=True))


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear | None:
    """Equation (5); the other scores read crops."""
    if config.score != "dclip":
        return None
    weight = fixed["scale"] * fixed["means"]
    return Linear(weight, weight.new_zeros(len(weight)))


METHOD = Method(
    name="lazsl",
    version=2,
    summary="Crops matched with each class's descriptions by optimal transport; no shots.",
    source="released code: Chen et al. 2025, arXiv:2506.23822",
    needs=needs,
    prepare=prepare,
    terms=terms,
    combine=combine,
    rebind=lambda params, fixed, text, config: prepare(
        of_texts(text, fixed["anchors"]), config, Hyper()
    ),  # nothing was learned
    linear=linear,
)
