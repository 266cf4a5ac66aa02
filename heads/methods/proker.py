"""ProKeR: kernel ridge regression from the shots, pulled towards the zero-shot classifier.

    logits = x T^T + k(x, X) A            k(x, z) = exp(-beta (1 - x z^T))     (1)
    A = (K / lam + I)^-1 (Y - X T^T)      as released                          (2)
    A = (K + lam I)^-1 (Y - X T^T)        kernel ridge regression, as derived  (3)

    x [n d] query rows, unit      T [c d] class anchors, unit; no logit scale
    X [m d] support points        Y [m c] one-hot labels           K = k(X, X) [m m]

(2) is (3) times lam. A search over beta and lam solves at few of their values, in float32, and the
logits in between are polynomials through those:

    logits(beta, lam) = sum_ij L_i(beta) M_j(sqrt lam) logits(beta_i, lam_j)   (4)

The head at the chosen point is solved in float64.

Points of a corpus have weights W (diagonal): A = (K + lam W^-1)^-1 (Y - X T^T), in (2) times lam.

Every augmented view of a shot is a support point of its own, as long as there are no more than
`points` of them; else each shot gives as many of its first views as fit, one at least.

Reference: Bendou et al., ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large
Vision-Language Models, CVPR 2025, arXiv:2501.11175.
Source: released code, as kept in omarnust/BReg-Adapter @035b684, trainers/proker.py; the paper's
body was not read, (3) is the closed form of the regression that it states.
Differs from the paper: as released, (2) lacks the factor 1 / lam of (3); `variant=paper` has it.
One search grid for all data sets, that released for Caltech101 and Food101 together with the values
fixed from ImageNet. No random Fourier features: more shots than a system has room for are refused.
Weights of corpus rows are ours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float, Float64
from torch import Tensor

from featcache.errors import UsageError
from featcache.wording import Argument
from heads.class_texts import text_tensors
from heads.contract.method import Method, Scout, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, evenly, number
from heads.ops.algebra import is_class
from heads.ops.kernel_ridge import RoughPath, affinity, solve

MOST = 16_384
"""Support rows: their system takes 2 GiB, and its factor as much again."""
FROM_IMAGENET = {1: (3.0, 0.05), 2: (2.6, 0.05), 4: (1.5, 0.05), 8: (1.66, 0.07), 16: (1.7, 0.1)}
"""Shots -> (beta, lam) as released for data sets without validation."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    variant: Literal["code", "paper"] = "code"
    """Equation (2) or (3)."""
    points: int = number(1024, low=1)
    """Support points up to which views are added to the shots."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    beta: float = number(1.7, low=0.0, prepare=True)
    """Sharpness of the kernel; larger trusts only near points."""
    lam: float = number(0.1, above=0.0, prepare=True)
    """Pull towards zero-shot; the paper's lambda."""


def defaults(shots: int | None) -> dict[str, float]:
    """Return the values fixed from ImageNet for the nearest number of shots; None is all."""
    known = list(FROM_IMAGENET)
    nearest = min(known, key=lambda k: abs(k - (known[-1] if shots is None else shots)))
    beta, lam = FROM_IMAGENET[nearest]
    return {"beta": beta, "lam": lam}


def support_points(rows: Rows, most: int) -> Rows:
    """Return the support points: views while there is room, else clean rows."""
    views = rows.get("views")
    if views is None:
        return rows
    v = min(views.shape[1], max(1, most // len(rows.x)))
    points = Rows.of(views[:, :v].flatten(0, 1), rows.y.repeat_interleave(v))
    weights = None if rows.weights is None else rows.weights.repeat_interleave(v)
    return replace(points, weights=weights)


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Solve (2) or (3) in float64.

    Raises:
        UsageError: If there are more shots than a system has room for.
    """
    points, anchors, residual = _problem(task, config)
    x = points.x
    system = affinity(x.double(), x.double(), hyper.beta)
    coefficients = solve(
        system,
        residual,
        hyper.lam,
        scaled=config.variant == "code",
        weights=points.weights,
    ).to(x)
    return {}, {"points": x, "anchors": anchors, "coefficients": coefficients}


def _problem(task: TaskView, config: Config) -> tuple[Rows, Tensor, Float64[Tensor, "m c"]]:
    """Return the support points, T and Y - X T^T."""
    anchors = text_tensors(task, config.text, method=METHOD.name)["anchors"]
    points = support_points(task.support, config.points)
    x = points.x
    if len(x) > MOST:
        raise UsageError(
            f"proker solves a system as large as its support: at most {MOST} rows, got {len(x)}. "
            f"Use fewer ",
            Argument("shots"),
            ", or gda, which has no such bound.",
        )
    return points, anchors, is_class(points.y, task.c).double() - x.double() @ anchors.double().mT


def scout(task: TaskView, config: Config) -> Scout:
    """Answer a search by (4)."""
    points, anchors, residual = _problem(task, config)
    x = points.x
    path = RoughPath(x, residual, scaled=config.variant == "code", weights=points.weights)

    def answer(grid: Sequence[Hyper], rows: Float[Tensor, "n d"]) -> Iterator[Tensor]:
        zero_shot = rows @ anchors.mT
        for correction in path.answers([(p.beta, p.lam) for p in grid], rows):
            yield zero_shot + correction

    return answer


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two products of (1) that X and T give."""
    kernel = affinity(rows.x, fixed["points"], hyper.beta)
    return {"zero_shot": rows.x @ fixed["anchors"].mT, "kernel": kernel}  # [n c], [n m]


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    return terms["zero_shot"] + terms["kernel"] @ fixed["coefficients"]


METHOD = Method(
    name="proker",
    summary="Kernel ridge regression of the shots, pulled towards the zero-shot classifier.",
    source="released code: Bendou et al. 2025, arXiv:2501.11175",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    combine=combine,
    train_grid=Grid({"beta": [*evenly(0.5, 3, 19), 3.0], "lam": [*evenly(0.001, 1, 9), 1.0]}),
    defaults=defaults,
    scout=scout,
    weighs_corpus=True,
    holds=("points",),
)
