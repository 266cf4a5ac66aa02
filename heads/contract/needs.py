"""Which features a method reads: kinds of rows, and whose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

V = TypeVar("V")

Role = Literal["support", "query", "pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Features that a method reads for the rows of one role."""

    role: Role
    kind: str = "global"
    """global, views, crops, patches or view_patches."""
    recipe: str | None = None
    """Augmentation or patch variant; None takes any."""
    at_least: int = 0
    """Views or crops of each image."""
    optional: bool = False
    """Used where it is there, done without where it is not."""

    @property
    def key(self) -> "Kind":
        """Return the name of these features among the `kinds` of rows."""
        return Kind(self.kind, self.recipe or "")


class Kind(NamedTuple):
    """Which features of an image: a kind beside the global ones, and its recipe or variant."""

    name: str
    """views, crops, patches or view_patches."""
    recipe: str = ""
    """Empty where the need took any."""

    def __str__(self) -> str:
        return f"{self.name}.{self.recipe}" if self.recipe else self.name


def find_kind(kinds: Mapping[Kind, V], kind: Kind) -> V | None:
    """Look up a kind; without a recipe its only one. None where there is none, or several."""
    if kind in kinds:
        return kinds[kind]
    recipes = [] if kind.recipe else [own for own in kinds if own.name == kind.name]
    return kinds[recipes[0]] if len(recipes) == 1 else None


SUPPORT_AND_QUERY: frozenset[Need] = frozenset({Need(role="query"), Need(role="support")})
"""Global features of the shots and of the queries."""

SHOTS_WITH_VIEWS: frozenset[Need] = SUPPORT_AND_QUERY | {
    Need(role="support", kind="views", recipe="rrc50", optional=True)
}
"""The same and, where there are any, the augmented views of the shots."""


def support_and_query(config: Any) -> frozenset[Need]:
    """Read global features of the shots and of the queries."""
    return SUPPORT_AND_QUERY


def shots_with_views(config: Any) -> frozenset[Need]:
    """Read the shots, their augmented views where there are any, and the queries."""
    return SHOTS_WITH_VIEWS
