"""Methods that are made of other methods: which ones, and what of each is joined.

Selection chooses and trains every member by itself, as if it were alone, and hands the heads to
`Composition.join` (`heads.selection.members`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from heads.contract.rows import Kind, Rows, TaskView, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A method with settings of its own, inside another method."""

    label: str
    """Name among the members: that of the method, with a number where it occurs again."""
    name: str
    """Name of the method."""
    settings: tuple[tuple[str, str], ...] = ()
    """Its settings, as written."""

    @property
    def text(self) -> str:
        """Return the member as it is written: `knn:k=3`."""
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.settings)])


@dataclass(frozen=True, kw_only=True)
class TrainedMember:
    """What a member learned on one task, with its answers to validation rows."""

    member: Member
    hyper: Mapping[str, float]
    params: Tensors
    fixed: Tensors
    validated: Float[Tensor, "n c"] | None = None
    """Logits of rows that it was not trained on; None where there are none."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The head that members give together."""

    config: Any
    fixed: Tensors
    weights: Mapping[str, float]
    """Label -> weight of each member that was trained, sum 1."""
    learned: Mapping[str, float]
    """Numbers that the record states, by name."""


def no_limit(config: Any, member: Member) -> int | None:
    """Train a member on any number of rows."""
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Composition:
    """How a method is made of others."""

    members: Callable[[Any], tuple[Member, ...]]
    """(config) -> its members."""
    join: Callable[[Any, Sequence[TrainedMember], Int64[Tensor, " n"] | None], Joined]
    """(config, trained members, labels of the validated rows or None) -> the head."""
    validates: Callable[[Any], bool]
    """(config) -> whether validation changes anything beside the members."""
    most_rows: Callable[[Any, Member], int | None] = no_limit
    """(config, member) -> largest support that it is trained on; None is any."""
    spares: bool = False
    """Whether members that cannot be trained on a task are left out; else that is an error."""


def rows_with(rows: Rows, kinds: Sequence[Kind]) -> Rows:
    """Return rows with some of their kinds of features only."""
    among = None if rows.among is None else rows_with(rows.among, kinds)
    return replace(
        rows,
        kinds={kind: values for kind, values in rows.kinds.items() if kind in kinds},
        lengths={kind: values for kind, values in rows.lengths.items() if kind in kinds},
        among=among,
    )


def view_with(view: TaskView, support: Sequence[Kind], pool: Sequence[Kind] | None) -> TaskView:
    """Return a task with some kinds of features of each role; without a pool where that is None."""
    return replace(
        view,
        support=rows_with(view.support, support),
        pool=None if pool is None or view.pool is None else rows_with(view.pool, pool),
    )
