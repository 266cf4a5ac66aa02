"""Ridge: linear least squares onto the one-hot labels, in closed form.

    min over W, b of  sum_i w_i |x_i W^T + b - y_i|^2 + lam |W|^2          (1)
    logits = x W^T + b                                                     (2)

    x [n d] rows, unit            y [n c] one-hot labels           w [n] class weights, or 1
    W [c d] weights               b [c] intercepts, not penalised: rows and labels are centred

With X and Y the centred rows and labels, each times the root of its weight, and X = Z A in
principal coordinates (A [r d] orthonormal, Z^T Z = diag(s)):

    x W^T + b = ((x - mean x) A^T / (s + lam)) Z^T Y + mean y              (3)

so one decomposition serves every lam.

Reference: Hoerl & Kennard, Ridge regression: biased estimation for nonorthogonal problems,
Technometrics 1970.
Source: paper; equal to scikit-learn's Ridge(alpha=lam) on one-hot labels, and in its answers to
RidgeClassifier, whose labels are -1 and 1.
Differs from the paper: a classifier takes the largest of c regressions, and lam is searched on
validation rows.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from heads.contract.linear import Linear
from heads.contract.method import Method
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, Nothing, number
from heads.ops.logistic import principal


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lam: float = number(1.0, above=0.0)
    """Strength of the penalty."""


def prepare(task: TaskView, config: Nothing, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Decompose the centred rows in float64."""
    labels = task.support.y
    x, weight = task.support.x.double(), task.support.row_weights.double()
    share = weight / weight.sum()
    centre, mean = share @ x, x.new_zeros(task.c).index_add(0, labels, share)
    root = weight.sqrt()[:, None]
    coordinates, axes = principal(root * (x - centre))
    by_class = x.new_zeros(task.c, len(axes)).index_add(0, labels, root * coordinates)
    solved = {
        "axes": axes,
        "squares": coordinates.square().sum(0),
        "targets": by_class.mT - (root * coordinates).sum(0)[:, None] * mean,  # [r c]
        "centre": centre,
        "mean": mean,
    }
    return {}, {n: t.to(task.support.x) for n, t in solved.items()}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Nothing, hyper: Hyper) -> Tensors:
    """Turn the rows to the principal axes, once for all lam."""
    return {"coordinates": (rows.x - fixed["centre"]) @ fixed["axes"].mT}  # [n r]


def combine(terms: Tensors, fixed: Tensors, config: Nothing, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (3)."""
    solution = fixed["targets"] / (fixed["squares"] + hyper.lam)[:, None]  # [r c]
    return terms["coordinates"] @ solution + fixed["mean"]


def linear(params: Tensors, fixed: Tensors, config: Nothing, hyper: Hyper) -> Linear:
    """Equation (3) without the principal coordinates."""
    solution = fixed["targets"] / (fixed["squares"] + hyper.lam)[:, None]  # [r c]
    weight = solution.mT @ fixed["axes"]  # [c d]
    return Linear(weight, fixed["mean"] - weight @ fixed["centre"])


METHOD = Method(
    name="ridge",
    summary="Least squares onto the labels, in closed form; reads no text.",
    source="paper: Hoerl & Kennard 1970, Technometrics 12(1)",
    weighted=True,
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid({"lam": [1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]}),
    linear=linear,
)
