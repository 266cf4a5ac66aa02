"""StatA: a mixture over all queries together whose classes are anchored at the texts' statistics.

    z_i ~ y_i exp((ll_i + r/6 sum_j (w_ij + w_ji) z_j) / r)          five sweeps    (1)
    ll_ic = -1/2 sum_d ((x_id - mu_cd)^2 / v_cd + ln v_cd)                          (2)
    mu_c = unit(b_c unit(m_c) + (1 - b_c) t_c)        b_c = n_c / (alpha + n_c)     (3)
    v_c = b_c s_c + (1 - b_c) (v0 + (t_c - mu_c)^2)                                 (4)
    logits = log z                                                                  (5)

    x [n d] query rows            t [c d] class anchors, unit      y = softmax(zero-shot logits)
    z [n c] assignments, rows sum to 1                             mu, v [c d] means and variances
    m_c, s_c means of x and of (x - mu_c)^2, weighted by z         n_c rows whose largest z is c
    v0_d = 1/n sum_ic y_ic (x_id - t_cd)^2                         r = 50
    w_ij cosine where query j is one of the 3 nearest queries of i, else 0

Start: z = y, mu = t, v = v0. Ten rounds of (1), (3) and (4), then (1) once more. A class that no
query is assigned to stays at its text, so that batches of few classes do no harm. No label is read,
and nothing is chosen: all constants are those of the paper.

Reference: Zanella et al., Realistic Test-Time Adaptation of Vision-Language Models, CVPR 2025,
arXiv:2501.03729.
Source: a specification of the released code @eea8637 and figures that it gives; the code, which is
under the AGPL, was not read, nor was the paper's body.
Differs from the paper: nothing known. Differs from the released code: v0 is divided by n once
(there after every 2500 rows, so that with more queries all but the last ones vanish from it); a row
is left out of its own neighbours by its place, not as the nearest of all, so that copies do no
harm; sums that underflow are guarded, and v is kept above 1e-10.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, Need
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.ops.neighbours import given_to_neighbours, neighbours, taken_from_neighbours

NEIGHBOURS, SWEEPS, ROUNDS = 3, 5, 10
R = 50.0
SMALLEST = 1e-10
"""A variance below it would divide by zero where a feature is constant; 1/d is the usual size."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    soft: bool = False
    """Count n_c as the sum of z, not as the rows whose largest z it is."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(1.0, above=0.0)
    """Weight of the texts' statistics, in rows: a class of n_c rows takes alpha / (alpha + n_c)."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Take the class texts; no image is learned from."""
    return {}, text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute what does not change from round to round; rows that are no queries as in TransCLIP.

    Rows and means are taken from the centre of all rows, for the sake of rounding.
    """
    x = rows.together.x
    cosine, near = neighbours(x, x, min(NEIGHBOURS, x.shape[0] - 1), left_out="self")
    centre = x.mean(0)
    log_prior = F.log_softmax(zero_shot_logits(fixed, x), dim=-1)
    made = {
        "x": x - centre,  # [n d]
        "centre": centre,
        "log_prior": log_prior,  # [n c]
        "near": near,  # [n k]
        "cosine": cosine,
    }
    if rows.among is not None:
        made["nearest"] = neighbours(rows.x, x, 1)[1][:, 0]
    return made


class Mixture(NamedTuple):
    """The moving parts; mu from the centre of all rows."""

    log_z: Float[Tensor, "n c"]
    mu: Float[Tensor, "c d"]
    v: Float[Tensor, "c d"]


def start(terms: Tensors, fixed: Tensors) -> tuple[Mixture, Float[Tensor, " d"]]:
    """Start at the texts: mu = t and v = v0, which is returned too."""
    x, y = terms["x"], terms["log_prior"].exp()
    text = fixed["anchors"] - terms["centre"]
    share = y.sum(0) / x.shape[0]
    squares = x.square().mean(0) + share @ text.square()
    v0 = (squares - 2 * (text * (y.mT @ x)).sum(0) / x.shape[0]).clamp_min(SMALLEST)
    return Mixture(log_z=terms["log_prior"], mu=text, v=v0.expand_as(text)), v0


def assign(mixture: Mixture, terms: Tensors) -> Mixture:
    """Equations (1) and (2), all rows of a sweep at once."""
    x, near, cosine = terms["x"], terms["near"], terms["cosine"]
    inverse = 1 / mixture.v
    scaled = mixture.mu * inverse
    offset = (mixture.mu * scaled + mixture.v.log()).sum(-1) / 2
    likelihood = x @ scaled.mT - x.square() @ inverse.mT / 2 - offset
    steady, log_z = terms["log_prior"] + likelihood / R, mixture.log_z
    for _ in range(SWEEPS):
        z = log_z.exp()
        pull = given_to_neighbours(z, near, cosine, x.shape[0])
        pull = pull + taken_from_neighbours(z, near, cosine)
        log_z = F.log_softmax(steady + pull / (2 * NEIGHBOURS), dim=-1)
    return mixture._replace(log_z=log_z)


def fit(
    mixture: Mixture,
    terms: Tensors,
    fixed: Tensors,
    v0: Float[Tensor, " d"],
    alpha: Tensor | float,
    *,
    soft: bool,
) -> Mixture:
    """Equations (3) and (4)."""
    x, centre, z = terms["x"], terms["centre"], mixture.log_z.exp()
    share = z.sum(0)  # [c]
    count = share
    if not soft:
        ones = z.new_ones(z.shape[0])
        count = z.new_zeros(z.shape[1]).index_add(0, z.argmax(-1), ones)
    b = (count / (alpha + count))[:, None]
    divisor = share.clamp_min(torch.finfo(share.dtype).tiny)[:, None]  # of absent classes, b is 0
    mean = (z.mT @ x) / divisor  # [c d]
    text = fixed["anchors"]
    mu = F.normalize(b * F.normalize(mean + centre, dim=-1) + (1 - b) * text, dim=-1)
    apart, away = mu - centre, text - mu
    spread = (z.mT @ x.square()) / divisor - apart * (2 * mean - apart)
    v = b * spread + (1 - b) * (v0 + away.square())
    return mixture._replace(mu=apart, v=v.clamp_min(SMALLEST))


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (5)."""
    mixture, v0 = start(terms, fixed)
    for _ in range(ROUNDS):
        mixture = assign(mixture, terms)
        mixture = fit(mixture, terms, fixed, v0, hyper.alpha, soft=config.soft)
    log_z = assign(mixture, terms).log_z
    return log_z[terms["nearest"]] if "nearest" in terms else log_z


METHOD = Method(
    name="stata",
    summary="A mixture over all queries together, anchored at the texts where a class is absent.",
    source="released code: Zanella et al. 2025, arXiv:2501.03729",
    transductive=True,
    needs=lambda config: frozenset({Need(role="query")}),
    prepare=prepare,
    terms=terms,
    combine=combine,
)
