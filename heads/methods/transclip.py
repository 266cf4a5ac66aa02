"""TransCLIP: all queries are answered together, by a Gaussian mixture that starts at the texts.

    z_i ~ y_i^lam exp((ll_i + r/6 sum_j (w_ij + w_ji) z_j) / r)     five sweeps     (1)
    ll_ic = -1/2 sum_d (x_id - mu_cd)^2 / sigma_d                                   (2)
    mu_c = unit(1/n sum_i z_ic x_i + r gamma/m sum_j Y_jc X_j)                      (3)
    sigma = (1/n sum_ic z_ic (x_i - mu_c)^2 + r gamma/m sum_jc Y_jc (X_j - mu_c)^2) / (1 + r gamma)
    logits = log z                                                                  (4)

    x [n d] all query rows        X [m d] shots, Y [m c] one-hot   y = softmax(zero-shot logits)
    z [n c] assignments, rows sum to 1; those of shots stay Y      mu [c d] means, sigma [d]
    w_ij cosine where query j is one of the 3 nearest queries of i (a query or a shot), else 0
    r = 50, weight of the likelihood                               gamma weight of the shots

Start: z = y, sigma = 1/d, mu from the shots or, without any, from the 8 queries surest of a class.
Ten rounds of (1), (3) and sigma, then (1) once more. gamma is chosen on validation rows, which are
not queries: each answers as the query nearest to it does. No label of a query is read.

Reference: Zanella et al., Boosting Vision-Language Models with Transduction, NeurIPS 2024,
arXiv:2406.01837.
Source: released code @6a9e8f3, TransCLIP_solver; the paper's body was not read.
Differs from the paper: nothing known in the equations. `variant=code` repeats what the released
few-shot code does besides: rows of w stand with the shots first and rows of z with the queries
first, so that the two are paired wrongly; a shot's nearest query is dropped as if it were the shot
itself; and each gamma continues from the result of the smaller ones. sigma is kept above 1e-10.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, Need, Together
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.ops.algebra import is_class
from heads.ops.neighbours import given_to_neighbours, neighbours, taken_from_neighbours

GAMMAS = (0.002, 0.01, 0.02, 0.2)
NEIGHBOURS, SWEEPS, ROUNDS, SURE = 3, 5, 10, 8
R = 50.0
SMALLEST = 1e-10
"""A variance below it would divide by zero where a feature is constant; 1/d is the usual size."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    mode: Literal["few-shot", "zero-shot"] = "few-shot"
    """zero-shot reads no labelled image."""
    variant: Literal["clean", "code"] = "clean"
    """clean is the equations above; code adds what the released few-shot code does besides."""
    lam: float | None = field(default=None, metadata={"low": 0.0})
    """Power of the texts' answer, the paper's lambda; None is 0.5, in zero-shot 1."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    gamma: float = number(0.002, low=0.0)
    """Weight of the shots, r gamma times that of all queries; unused without shots. The default is
    what the released search keeps among equals."""


def needs(config: Config) -> frozenset[Need]:
    """Query rows and, in few-shot, clean support rows."""
    query = frozenset({Need(role="query")})
    return query if config.mode == "zero-shot" else query | {Need(role="support")}


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Memorise the shots, none in zero-shot."""
    x = task.support.x
    shots = {"shots": x[:0], "classes": x.new_zeros(0, task.c)}
    if config.mode == "few-shot":
        shots = {"shots": x, "classes": is_class(task.support.y, task.c).to(x)}
    return {}, shots | text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute what does not change from sweep to sweep.

    Rows that are no queries come with the queries (`rows.among`), whose mixture answers them.
    """
    x, shots = rows.together.x, fixed["shots"]
    n, m = x.shape[0], shots.shape[0]
    of_code = config.variant == "code"
    count = min(NEIGHBOURS, n - 1)
    near = [neighbours(x, x, count, left_out="first" if of_code else "self")]
    if m:
        near.append(neighbours(shots, x, count, left_out="first" if of_code else ""))
    if of_code:
        near.reverse()
    cosines, index = (torch.cat(parts) for parts in zip(*near, strict=True))
    centre = x.mean(0)
    made = {
        "x": x - centre,  # [n d]
        "centre": centre,
        "log_prior": F.log_softmax(zero_shot_logits(fixed, x), dim=-1),  # [n c]
        "near": index[:n],  # [n k]
        "cosine": cosines[:n],
        "pull": given_to_neighbours(fixed["classes"], index[n:], cosines[n:], n),  # [n c]
    }
    if rows.among is not None:
        made["nearest"] = neighbours(rows.x, x, 1)[1][:, 0]
    return made


class Mixture(NamedTuple):
    """The moving parts."""

    z: Float[Tensor, "n c"]
    log_z: Float[Tensor, "n c"]
    mu: Float[Tensor, "c d"]
    sigma: Float[Tensor, " d"]


def start(terms: Tensors, fixed: Tensors) -> Mixture:
    """Start at the texts' answers, and at the shots' means where a class has any."""
    x, log_prior = terms["x"], terms["log_prior"]
    sure = log_prior.topk(min(SURE, x.shape[0]), dim=0)  # [8 c]
    weight = (sure.values - sure.values.amax(0)).exp()
    surest = torch.einsum("kc,kcd->cd", weight, x[sure.indices] + terms["centre"])
    total = fixed["classes"].mT @ fixed["shots"]  # [c d]
    has_shots = fixed["classes"].sum(0)[:, None] > 0
    mu = F.normalize(torch.where(has_shots, total, surest), dim=-1)
    sigma = torch.full_like(terms["centre"], 1 / x.shape[1])
    return Mixture(z=log_prior.exp(), log_z=log_prior, mu=mu, sigma=sigma)


def rounds(
    mixture: Mixture, terms: Tensors, fixed: Tensors, power: float, gamma: Tensor | float
) -> Mixture:
    """Repeat (1) and (3) at one gamma, and end with (1)."""
    for _ in range(ROUNDS):
        mixture = fit(assign(mixture, terms, power), terms, fixed, gamma)
    return assign(mixture, terms, power)


def assign(mixture: Mixture, terms: Tensors, power: float) -> Mixture:
    """Equations (1) and (2), all rows of a sweep at once.

    Rows and means are taken from the centre of all rows, for the sake of rounding; what (2) has
    in common for all classes is left out.
    """
    scaled = (mixture.mu - terms["centre"]) / mixture.sigma  # [c d]
    offset = (scaled * (mixture.mu - terms["centre"])).sum(-1) / 2
    steady = power * terms["log_prior"] + (terms["x"] @ scaled.mT - offset) / R
    z, log_z = mixture.z, mixture.log_z
    near, cosine, n = terms["near"], terms["cosine"], terms["x"].shape[0]
    for _ in range(SWEEPS):
        pull = terms["pull"] + given_to_neighbours(z, near, cosine, n)
        pull = pull + taken_from_neighbours(z, near, cosine)
        log_z = F.log_softmax(steady + pull / (2 * NEIGHBOURS), dim=-1)
        z = log_z.exp()
    return mixture._replace(z=z, log_z=log_z)


def fit(mixture: Mixture, terms: Tensors, fixed: Tensors, gamma: Tensor | float) -> Mixture:
    """Equation (3) and sigma; a class that nothing belongs to keeps its mean."""
    z, x, centre = mixture.z, terms["x"], terms["centre"]
    shots = fixed["shots"] - centre
    m = max(1, shots.shape[0])
    weight = R * gamma if shots.shape[0] else 0.0
    total = z.mT @ x / x.shape[0] + weight / m * (fixed["classes"].mT @ shots)  # [c d]
    share = z.sum(0) / x.shape[0] + weight / m * fixed["classes"].sum(0)  # [c]
    mean = total / share.clamp_min(torch.finfo(share.dtype).tiny)[:, None] + centre
    mu = torch.where(share[:, None] > 0, F.normalize(mean, dim=-1), mixture.mu)
    apart = mu - centre
    squares = x.square().mean(0) + weight / m * shots.square().sum(0)
    spread = squares - (apart * (2 * total - share[:, None] * apart)).sum(0)  # [d]
    sigma = (spread / (1 + weight)).clamp_min(SMALLEST)
    return mixture._replace(mu=mu, sigma=sigma)


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (4)."""
    lam = {"few-shot": 0.5, "zero-shot": 1.0}[config.mode] if config.lam is None else config.lam
    mixture = start(terms, fixed)
    if config.variant == "code" and fixed["shots"].shape[0]:
        gamma = torch.as_tensor(hyper.gamma)
        for below, value in zip((-1.0, *GAMMAS[:-1]), (*GAMMAS[:-1], torch.inf), strict=True):
            after = rounds(mixture, terms, fixed, lam, gamma.clamp(max=value))
            pairs = zip(after, mixture, strict=True)
            mixture = Mixture(*(torch.where(gamma > below, new, old) for new, old in pairs))
    else:
        mixture = rounds(mixture, terms, fixed, lam, hyper.gamma)
    return mixture.log_z[terms["nearest"]] if "nearest" in terms else mixture.log_z


def caution(together: Together) -> str:
    """Warn where the queries hold few of the classes: the mixture spreads them over all."""
    if 2 * together.present >= together.classes:
        return ""
    return (
        f"The queries answered together hold {together.present:.3g} of {together.classes} classes "
        f"on average. TransCLIP spreads queries over all classes and is known to fall below "
        f"zero-shot there (published, ViT-B/16, batches of 64 with 1 to 4 classes: 38.9 against "
        f"65.2); method 'stata' is made for it."
    )


METHOD = Method(
    name="transclip",
    summary="A mixture over all queries together, from the texts, with or without shots.",
    source="released code: Zanella et al. 2024, arXiv:2406.01837",
    transductive=True,
    caution=caution,
    needs=needs,
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid({"gamma": GAMMAS}),
)
