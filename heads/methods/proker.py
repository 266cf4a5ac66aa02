"""ProKeR: kernel ridge regression from the shots, pulled towards the zero-shot classifier.

    logits = x T^T + k(x, X) A            k(x, z) = exp(-beta (1 - x z^T))     (1)
    A = (K / lam + I)^-1 (Y - X T^T)      as released                          (2)
    A = (K + lam I)^-1 (Y - X T^T)        kernel ridge regression, as derived  (3)

    x [n d] query rows, unit      T [c d] class anchors, unit; no logit scale
    X [m d] support points        Y [m c] one-hot labels           K = k(X, X) [m m]

(2) is (3) times lam. Both share the eigenvectors of K, which are found once for each beta:

    K = U diag(e) U^T      k(x, X) A = (k(x, X) U) diag(g) (U^T R)      R = Y - X T^T
    g = lam / (e + lam)  by (2),  1 / (e + lam)  by (3)                        (4)

Every augmented view of a shot is a support point of its own, as long as there are no more than
`points` of them; else each shot gives as many of its first views as fit, one at least.

Reference: Bendou et al., ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large
Vision-Language Models, CVPR 2025, arXiv:2501.11175.
Source: released code, as kept in omarnust/BReg-Adapter @035b684, trainers/proker.py; the paper's
body was not read, (3) is the closed form of the regression that it states.
Differs from the paper: as released, (2) lacks the factor 1 / lam of (3); `variant=paper` has it.
One search grid for all data sets, that released for Caltech101 and Food101 together with the values
fixed from ImageNet. No random Fourier features: more
shots than an eigendecomposition has room for are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import UsageError
from heads.core.algebra import SHOTS_WITH_VIEWS, is_class, text_tensors
from heads.core.contract import Grid, Need, RoleRows, Stage, TaskView, Tensors, TextKind, number

name = "proker"
summary = "Kernel ridge regression of the shots, pulled towards the zero-shot classifier."
source = "released code: Bendou et al. 2025, arXiv:2501.11175"
transductive = False

MOST = 16_384
"""Support rows: their system takes 2 GiB, and its eigenvectors as much again."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What changes a shape or a branch."""

    text: TextKind | None = None
    """What the anchors are made of; None is the data set's default."""
    variant: Literal["code", "paper"] = "code"
    """Equation (2) or (3)."""
    points: int = number(1024, low=1)
    """Support points up to which views are added to the shots."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Floats of equations (1) to (3)."""

    beta: float = number(1.7, low=0.0)
    """Sharpness of the kernel; larger trusts only near points."""
    lam: float = number(0.1, above=0.0)
    """Pull towards zero-shot; the paper's lambda."""


train_grid = Grid({"beta": [0.5 + i * 2.5 / 19 for i in range(20)]})
post_grid = Grid({"lam": [0.001 + i * 0.999 / 9 for i in range(10)]})

FROM_IMAGENET: Mapping[int, tuple[float, float]] = {
    1: (3.0, 0.05),
    2: (2.6, 0.05),
    4: (1.5, 0.05),
    8: (1.66, 0.07),
    16: (1.7, 0.1),
}
"""Shots -> (beta, lam) as released for data sets without validation."""


def defaults(shots: int | None) -> dict[str, float]:
    """Return the values fixed from ImageNet for the nearest number of shots; None is all."""
    known = list(FROM_IMAGENET)
    nearest = min(known, key=lambda k: abs(k - (known[-1] if shots is None else shots)))
    beta, lam = FROM_IMAGENET[nearest]
    return {"beta": beta, "lam": lam}


def needs(config: Config) -> frozenset[Need]:
    """Support rows; their augmented views where there are any."""
    return SHOTS_WITH_VIEWS


def stages(config: Config) -> tuple[Stage, ...]:
    """Train nothing: `prepare` solves."""
    return ()


def support_points(rows: RoleRows, most: int) -> tuple[Float[Tensor, "m d"], Int64[Tensor, " m"]]:
    """Return the support points and their labels: views while there is room, else clean rows."""
    assert rows.labels is not None
    views = rows.get("views")
    if views is None:
        return rows.x, rows.labels
    v = min(views.shape[1], max(1, most // len(rows.x)))
    return views[:, :v].flatten(0, 1), rows.labels.repeat_interleave(v)


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Find the eigenvectors of the kernel in float64.

    Raises:
        UsageError: If there are more shots than it has room for.
    """
    text = text_tensors(task, config.text, method=name)
    x, y = support_points(task.support, config.points)
    if len(x) > MOST:
        raise UsageError(
            f"proker solves a system as large as its support: at most {MOST} rows, got {len(x)}. "
            f"Use fewer --shots, or gda, which has no such bound."
        )
    points = x.double()
    residual = is_class(y, task.c).double() - points @ text["anchors"].double().mT  # [m c]
    values, vectors = torch.linalg.eigh(_kernel(points, points, hyper.beta))
    solved = {"eigenvalues": values, "eigenvectors": vectors, "residual": vectors.mT @ residual}
    return {}, {"points": x, "anchors": text["anchors"]} | {n: t.to(x) for n, t in solved.items()}


def _kernel(
    x: Float[Tensor, "n d"], points: Float[Tensor, "m d"], beta: float | Tensor
) -> Float[Tensor, "n m"]:
    return (beta * (x @ points.mT - 1)).exp()


def terms(params: Tensors, fixed: Tensors, query: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Compute what (1) and (4) need for all lam."""
    x = query["x"]
    kernel = _kernel(x, fixed["points"], hyper.beta)  # [n m]
    return {
        "zero_shot": x @ fixed["anchors"].mT,  # [n c]
        "kernel": kernel @ fixed["eigenvectors"],  # [n m]
    }


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equations (1) and (4)."""
    gain = 1 / (fixed["eigenvalues"] + hyper.lam)  # [m]
    if config.variant == "code":
        gain = hyper.lam * gain
    return terms["zero_shot"] + terms["kernel"] @ (gain[:, None] * fixed["residual"])
