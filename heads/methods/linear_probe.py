"""Linear probe: multinomial logistic regression on the frozen features.

    min over W, b of  C sum_i w_i CE(x_i W^T + b, y_i) + 1/2 |W|^2         (1)
    logits = x W^T + b                                                     (2)

    x [n d] rows, unit            W [c d] weights                  b [c] intercepts, not penalised
    C inverse strength of the penalty                              w [n] class weights, or 1

The problem is convex, so any solver that converges gives the same head. C is searched as CoOp does:
seven values two decades apart, then eight rounds of halving, on a logarithmic scale, the decade on
either side of the best. The search solves (1) roughly, each value of C from the nearest before it;
the head at the chosen C is solved to the optimum.

Reference: Radford et al., ICML 2021, arXiv:2103.00020, appendix A.3; few-shot use as in Zhou et
al., CoOp, IJCV 2022, arXiv:2109.01134, `lpclip/linear_probe.py` @61a9cd3.
Source: paper and released code; equal to scikit-learn's LogisticRegression(C=C).
Differs from the paper: rows are unit, CoOp's are as the encoder gives them. (1) is solved to the
optimum; the released calls of scikit-learn stop at a slope of 1e-4, under a weak penalty far from
it. Of values of C that are equally right CoOp takes the largest in the grid and the smaller one in
a round; here the default wins, then the nearest to it.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from featcache.errors import ConvergenceWarning
from heads.contract.linear import Linear
from heads.contract.method import Method, Scout
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, number
from heads.ops.logistic import RoughPath, logistic_regression

ENOUGH = 1e-6
"""Decrease left of (1), as a share of its value, above which a head is not converged."""


@dataclass(frozen=True, kw_only=True)
class Config:
    max_iter: int = number(1000, low=1)
    """Steps of the solver at most, in each precision and decade of C."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    C: float = number(100.0, above=0.0, prepare=True)
    """Inverse strength of the penalty; larger fits the shots more closely."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Solve (1)."""
    x, weights = task.support.x, task.support.row_weights
    weight, bias, left = logistic_regression(
        x.double(), task.support.y, weights.double(), task.c, hyper.C, max_iter=config.max_iter
    )
    if left > ENOUGH:
        warnings.warn(
            f"The linear probe stopped {left:.1e} above the optimum after {config.max_iter} steps "
            f"with C={hyper.C:g}; raise max_iter or lower C.",
            ConvergenceWarning,
            stacklevel=1,
        )
    return {"weight": weight.to(x), "bias": bias.to(x)}, {}


def scout(task: TaskView, config: Config) -> Scout:
    """Solve (1) roughly at the points of a search."""
    x, weights = task.support.x.double(), task.support.row_weights.double()
    path = RoughPath(x, task.support.y, weights, task.c, max_iter=config.max_iter)

    def answer(points: Sequence[Hyper], rows: Float[Tensor, "n d"]) -> Iterator[Tensor]:
        for hyper in points:
            weight, bias = path.solve(hyper.C)
            yield rows @ weight.to(rows).mT + bias.to(rows)

    return answer


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (2)."""
    return {"logits": rows.x @ params["weight"].mT + params["bias"]}


METHOD = Method(
    name="linear-probe",
    summary="Logistic regression on the features; reads no text.",
    source="paper and released code: Radford et al. 2021, arXiv:2103.00020",
    weighted=True,
    prepare=prepare,
    terms=terms,
    train_grid=Grid({"C": [1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6]}, refine=8),
    scout=scout,
    linear=lambda params, fixed, config, hyper: Linear(params["weight"], params["bias"]),
)
