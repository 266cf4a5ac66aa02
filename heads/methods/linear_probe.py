"""Linear probe: multinomial logistic regression on the frozen features.

    min over W, b of  C sum_i w_i CE(x_i W^T + b, y_i) + 1/2 |W|^2         (1)
    logits = x W^T + b                                                     (2)

    x [n d] rows, unit            W [c d] weights                  b [c] intercepts, not penalised
    C inverse strength of the penalty                              w [n] class weights, or 1

The problem is convex, so any solver that converges gives the same head. Ours is L-BFGS in float64
on centred rows: with b free the centre changes nothing but the conditioning, which a common
direction of all features would spoil.

Reference: Radford et al., ICML 2021, arXiv:2103.00020, appendix A.3; few-shot use as in Zhou et
al., CoOp, IJCV 2022, arXiv:2109.01134.
Source: paper and released code; equal to scikit-learn's LogisticRegression(C=C).
Differs from the paper: rows are unit; C is searched on a fixed grid of one point a decade, without
the released code's binary refinement around the best.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import ConvergenceWarning
from heads.core.contract import Grid, Need, Stage, TaskView, Tensors, number

name = "linear-probe"
summary = "Logistic regression on the features; reads no text."
source = "paper and released code: Radford et al. 2021, arXiv:2103.00020"
transductive = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """What stops the solver."""

    max_iter: int = number(1000, low=1)
    """Steps of L-BFGS at most."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """The float of equation (1)."""

    C: float = number(100.0, above=0.0)
    """Inverse strength of the penalty; larger fits the shots more closely."""


train_grid = Grid({"C": [0.1, 1.0, 10.0, 100.0, 1e3, 1e4]})
post_grid = Grid()


GRADIENT = 1e-8
"""Largest slope at which (1), divided by C n, counts as solved."""


def needs(config: Config) -> frozenset[Need]:
    """Support and query rows."""
    return frozenset({Need(role="query"), Need(role="support")})


def stages(config: Config) -> tuple[Stage, ...]:
    """Train nothing by steps: `prepare` solves (1)."""
    return ()


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Solve (1)."""
    assert task.support.labels is not None
    x = task.support.x.double()
    centre = x.mean(0)
    row_weights = torch.ones(len(x)) if task.weights is None else task.weights
    weight, offset = solve(
        x - centre, task.support.labels, row_weights.to(x), task.c, hyper.C, config.max_iter
    )
    bias = offset - weight @ centre
    return {"weight": weight.to(task.support.x), "bias": bias.to(task.support.x)}, {}


def solve(
    x: Float64[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    row_weights: Float64[Tensor, " n"],
    classes: int,
    strength: float,
    max_iter: int,
) -> tuple[Float64[Tensor, "c d"], Float64[Tensor, " c"]]:
    """Minimise (1), divided by C n so that one tolerance fits all C.

    The best weights lie in the span of the rows: with fewer rows than dimensions the problem is
    solved in that span, which is exact and smaller. Under a strong penalty weights are tiny beside
    the intercepts; they are then solved in a unit of their own.
    """
    n, d = x.shape
    basis = None
    if n < d:
        u, s, basis = torch.linalg.svd(x, full_matrices=False)  # basis [n d], orthonormal rows
        x = u * s  # [n n]
    unit = min(1.0, (strength * n) ** 0.5)
    x = x * unit
    penalty = unit**2 / (2 * strength * n)
    weight = x.new_zeros(classes, x.shape[1]).requires_grad_()
    bias = x.new_zeros(classes).requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        tolerance_grad=GRADIENT,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Float64[Tensor, ""]:
        solver.zero_grad()
        fit = row_weights @ F.cross_entropy(x @ weight.mT + bias, y, reduction="none") / n
        value: Tensor = fit + penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    slope = max(float(p.grad.abs().max()) for p in (weight, bias) if p.grad is not None)
    if slope > 100 * GRADIENT:
        warnings.warn(
            f"The linear probe stopped at slope {slope:.1e} after {max_iter} steps with "
            f"C={strength:g}; raise max_iter or lower C.",
            ConvergenceWarning,
            stacklevel=2,
        )
    found = unit * weight.detach()
    return (found if basis is None else found @ basis), bias.detach()


def terms(params: Tensors, fixed: Tensors, query: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Equation (2)."""
    return {"logits": query["x"] @ params["weight"].mT + params["bias"]}


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Hand the logits on."""
    return terms["logits"]
