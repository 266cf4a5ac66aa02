"""Ensemble: other methods, trained one by one, and their probabilities pooled.

    mean, greedy    logits = log sum_m w_m p_m                  (1)
    log             logits = log softmax(sum_m w_m log p_m)     (2)
    p_m = softmax(z_m / T_m)                                    (3)

    z_m [n c] logits of member m      w_m >= 0, sum 1           T_m temperature of member m

The softmax of the ensemble's logits is the pooled distribution. `mean` and `log` weigh all members
alike. `greedy` adds members one at a time, with replacement, each the one that lowers the
cross-entropy of (1) on validation most. T_m minimises the cross-entropy of member m on validation.
The hyper-parameters of each member are chosen as if it were alone.

Reference: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004 (greedy); Guo et
al., On Calibration of Modern Neural Networks, ICML 2017 (temperatures); Genest and Zidek,
Combining Probability Distributions, Statistical Science 1986 (both pools).
Source: our reconstruction of these papers; which methods are pooled by default is ours.
Differs from the paper: one metric, cross-entropy, where Caruana et al. take any; no bagging of the
members and no start from the best ones; targets of the temperatures are smoothed, as Platt's are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import UsageError
from featcache.wording import Argument, Setting
from heads import member_pool
from heads.contract.members import Composition, Joined, TrainedMember
from heads.contract.method import Method
from heads.contract.rows import TaskView, Tensors
from heads.contract.settings import Nothing, number
from heads.ops.pooling import log_pool, mean_pool


@dataclass(frozen=True, kw_only=True)
class Config:
    members: str = "gda,proker,tip-adapter"
    """Names of methods, each with settings of its own after colons: `gda,knn:k=3`."""
    rule: Literal["mean", "log", "greedy"] = "mean"
    """Equation (1) or (2) with equal weights, or (1) with weights chosen on validation."""
    calibrate: bool = True
    """Choose the temperatures on validation; else, and without validation, they are 1."""
    rounds: int = number(50, low=1, high=10_000)
    """Members that `greedy` adds, one after the other."""


def join(
    config: Config, trained: Sequence[TrainedMember], labels: Int64[Tensor, " n"] | None
) -> Joined:
    """Choose temperatures and weights, and put all tensors of the members together.

    Members of weight 0 are left out.

    Raises:
        UsageError: If `greedy` has no validation rows.
        TrainingError: If the answers of a member to validation rows are not finite.
    """
    heats, weights = [1.0] * len(trained), [1 / len(trained)] * len(trained)
    if config.calibrate and labels is not None:
        heats = member_pool.temperatures(trained, labels)
    if config.rule == "greedy":
        if labels is None:
            raise UsageError(
                "ensemble's rule greedy chooses weights on validation, and there is none. Set ",
                Setting("rule", "mean"),
                ", or let ",
                Argument("selection", "few-shot-val"),
                " (which needs val images) or ",
                Argument("selection", "cv"),
                " (two shots or more) choose.",
            )
        weights = member_pool.greedy(trained, heats, labels, config.rounds)
    return member_pool.joined(config, trained, heats, weights)


def prepare(task: TaskView, config: Config, hyper: Nothing) -> tuple[Tensors, Tensors]:
    """Train every member at its defaults and pool all alike: there is no validation here.

    Raises:
        TrainingError: If a member could not be trained.
    """
    # selection joins with validation rows; `greedy` without any is refused there
    return {}, member_pool.alike(METHOD, config, task)


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Nothing) -> Float[Tensor, "n c"]:
    """Compute equations (3), and (1) or (2)."""
    pool = log_pool if config.rule == "log" else mean_pool
    return pool(member_pool.log_p(terms, fixed, config), fixed["weights"])


METHOD = Method(
    name="ensemble",
    summary="Any methods, trained one by one, with their probabilities pooled.",
    source="reconstruction: Caruana et al. 2004; Guo et al. 2017",
    needs=member_pool.needs,
    prepare=prepare,
    terms=member_pool.terms,
    combine=combine,
    composition=Composition(
        members=member_pool.members,
        join=join,
        validates=lambda config: config.calibrate or config.rule == "greedy",
    ),
)
