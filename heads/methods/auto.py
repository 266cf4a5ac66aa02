"""Auto: a portfolio of methods, pooled by weights that validation chooses.

    logits = log sum_m w_m p_m          (1)
    p_m = softmax(z_m / T_m)            (2)

    z_m [n c] logits of member m      w_m >= 0, sum 1           T_m temperature of member m

Each member's hyper-parameters are chosen on validation rows as if it were alone; T_m minimises its
cross-entropy there. Weights grow by adding one member at a time, with replacement, each the one
that lowers the cross-entropy of (1) most. Without validation images the rows are folds of the
training images, and every member is trained anew on all of them at what was chosen. Without either
(one shot a class) members have their defaults, T_m = 1, and all weigh alike.

Members that need texts are left out where there are none, and members that are slow on many
training images above a number of them.

Reference: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004 (weights); Guo et
al., On Calibration of Modern Neural Networks, ICML 2017 (temperatures).
Source: our reconstruction of these papers; the portfolio is ours, chosen on validation rows of
several data sets (docs/methods/auto.md).
Differs from the paper: one metric, cross-entropy; no bagging and no start from the best members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from heads import member_pool
from heads.contract.members import Composition, Joined, Member, TrainedMember
from heads.contract.method import Method
from heads.contract.rows import TaskView, Tensors
from heads.contract.settings import Nothing, number
from heads.ops.pooling import mean_pool

MOST_ROWS: Mapping[str, int] = {"proker": 3_000, "taskres": 12_000, "linear-probe": 40_000}
"""Member -> largest support on which it is trained; the others take any (docs/methods/auto.md)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    members: str = "cmm,taskres,proker,gda,ridge,linear-probe,knn,nearest-mean"
    """Names of methods, each with settings of its own after colons: `gda,knn:k=3`."""
    rounds: int = number(50, low=1, high=10_000)
    """Members that are added, one after the other, while the weights grow."""


def join(
    config: Config, trained: Sequence[TrainedMember], labels: Int64[Tensor, " n"] | None
) -> Joined:
    """Choose temperatures and weights on validation rows; without any all members weigh alike.

    Raises:
        TrainingError: If the answers of a member to validation rows are not finite.
    """
    if labels is None:
        alike = [1 / len(trained)] * len(trained)
        return member_pool.joined(config, trained, [1.0] * len(trained), alike)
    heats = member_pool.temperatures(trained, labels)
    weights = member_pool.greedy(trained, heats, labels, config.rounds)
    return member_pool.joined(config, trained, heats, weights)


def most_rows(config: Config, member: Member) -> int | None:
    """Return the largest support that a member is trained on; None is any."""
    return MOST_ROWS.get(member.name)


def prepare(task: TaskView, config: Config, hyper: Nothing) -> tuple[Tensors, Tensors]:
    """Train every member at its defaults and pool all alike: there is no validation here.

    Raises:
        UsageError: If no member can be trained.
    """
    return {}, member_pool.alike(METHOD, config, task)


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Nothing) -> Float[Tensor, "n c"]:
    """Compute equations (2) and (1)."""
    return mean_pool(member_pool.log_p(terms, fixed, config), fixed["weights"])


METHOD = Method(
    name="auto",
    summary="A portfolio of methods on all training images, weighed by validation.",
    source="reconstruction: Caruana et al. 2004; Guo et al. 2017",
    usual_shots=None,
    needs=member_pool.needs,
    prepare=prepare,
    terms=member_pool.terms,
    combine=combine,
    composition=Composition(
        members=member_pool.members,
        join=join,
        validates=lambda config: True,
        most_rows=most_rows,
        spares=True,
    ),
)
