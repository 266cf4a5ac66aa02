"""A method as one value: what it reads, what it can be set to, and its equations."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

from torch import Tensor

from featcache.types import FeatureSet
from heads.contract.linear import Linear, not_linear
from heads.contract.members import Composition
from heads.contract.rows import Kind, Rows, TaskView, Tensors
from heads.contract.settings import Grid, Nothing
from heads.contract.stages import Stage, last_logits
from heads.text_view import TextView

Role = Literal["support", "query", "pool", "corpus"]
"""corpus: rows with pseudo-labels from a corpus of the data set, global features alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Features that a method reads for the rows of one role."""

    role: Role
    kind: str = "global"
    """global, views, crops, patches, view_patches or tokens."""
    recipe: str | None = None
    """Augmentation, patch variant or place of tokens (last-block); None takes any."""
    variant: str | None = None
    """Patch variant of view_patches, whose recipe is an augmentation; None takes any."""
    at_least: int = 0
    """Views or crops of each image."""
    optional: bool = False
    """Used where it is there, done without where it is not."""
    lazy: bool = False
    """Whether rows of the support are read when they are gathered, not beforehand."""

    @property
    def key(self) -> Kind:
        """Return the name of these features among the `kinds` of rows."""
        return Kind(self.kind, self.recipe or "")

    def fitting(self, features: FeatureSet) -> list[str]:
        """Return the components of a cache that meet it, whatever rows they have, best first."""
        return features.fitting(self.kind, self.recipe, self.at_least, self.variant)


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


Scout: TypeAlias = Callable[[Sequence[Any], Tensor], Iterator[Tensor]]
"""(Hypers, rows [n d]) -> the logits [n c] at each of the Hypers, in their order."""

Watched: TypeAlias = Mapping[str, Sequence[float]]
"""Recorded numbers by name: of a stage one at the end of every epoch, of `prepare` one."""


C = TypeVar("C")
"""A method's Config: a frozen dataclass of what changes a shape or a branch; static, hashable."""
H = TypeVar("H")
"""A method's Hyper: a frozen dataclass of floats, which are traced."""


_FROM_PREPARE: type[Any] = Nothing
_NO_GRID = Grid()


def no_stages(config: Any) -> tuple[Stage, ...]:
    """Train nothing: `prepare` holds the whole method."""
    return ()


def no_notes(watched: Sequence[Watched]) -> list[str]:
    """Say nothing."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """The queries that a transductive method answered together, on average over its calls."""

    rows: float
    present: float
    """Classes that occur among their labels; known to the protocol, never to the method."""
    classes: int
    """Classes of the task."""


def no_caution(together: Together) -> str:
    """Say nothing."""
    return ""


def no_facts(task: TaskView, config: Any) -> Mapping[str, Any]:
    """Need none."""
    return {}


def no_defaults(shots: int | None) -> Mapping[str, float]:
    """Change no default."""
    return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Method(Generic[C, H]):
    """A method: its names, its settings, and its equations as pure functions."""

    name: str
    """On the command line; follows from the name of the file (`heads.registry.name_of`)."""
    summary: str
    """One line for `heads list`."""
    source: str
    """paper, released code or reconstruction, with the reference."""
    prepare: Callable[[TaskView, C, H], tuple[Tensors, Tensors]]
    """Build (params, fixed) for ONE task in plain torch; not vmapped."""
    terms: Callable[[Tensors, Tensors, Rows, C, H], Tensors]
    """(params, fixed, rows, config, hyper) -> the heavy, grid-free part for a chunk of rows.

    A transductive method gets all rows at once; where they are no queries (validation rows),
    `rows.among` holds the queries that they are answered together with.
    """
    version: int = 1
    """Raised when the method's answers change; records of an older version are not ranked."""
    transductive: bool = False
    """Answers all queries together."""
    online: bool = False
    """Whether a transductive method walks through the queries in order, so that an answer depends
    on those before."""
    caution: Callable[[Together], str] = no_caution
    """What a reader must know where a transductive method answered such queries; "" for nothing."""
    config: type[C] = _FROM_PREPARE
    hyper: type[H] = _FROM_PREPARE
    """Both are those in the signature of `prepare`."""
    needs: Callable[[C], frozenset[Need]] = support_and_query
    """Name the features read."""
    stages: Callable[[C], tuple[Stage, ...]] = no_stages
    """List the rounds of training; () is training-free."""
    combine: Callable[[Tensors, Tensors, C, H], Tensor] = last_logits
    """(terms, fixed, config, hyper) -> logits [n c]; cheap, the post grid walks over it."""
    train_grid: Grid = _NO_GRID
    """Values that need another training."""
    post_grid: Grid = _NO_GRID
    """Values that only combine the terms anew."""
    weighted: bool = False
    """Reads `Rows.weights` of the support in `prepare`; what is trained by batches always does."""
    weighs_corpus: bool = False
    """Reads in `prepare` the weights of rows from a corpus, but no class weights."""
    watch: tuple[str, ...] = ()
    """Numbers (0-d) among the fixed tensors of `prepare` that `notes` reads, if they are there."""
    notes: Callable[[Sequence[Watched]], list[str]] = no_notes
    """What a reader must know of how training went, from what every repetition recorded."""
    usual_shots: int | None = 16
    """Images a class where nobody says how many; None is all."""
    defaults: Callable[[int | None], Mapping[str, float]] = no_defaults
    """Values of Hyper that depend on the shots a class (None is all)."""
    scout: Callable[[TaskView, C], Scout] | None = None
    """What a search needs to know, for less than `prepare` at every point of the train grid, and
    nearly the same; it is asked several times and may remember. The head at the chosen point is
    prepared as always. For a method without stages."""

    facts: Callable[[TaskView, C], Mapping[str, Any]] = no_facts
    """(task, config) -> what of the features its equations branch on, plain values by name
    (`heads.contract.facts`); {} for nearly all."""
    bound: type[Any] | None = None
    """The subclass of Config that has these facts as fields; None where there are none."""
    rebind: Callable[[Tensors, Tensors, TextView, C], tuple[Tensors, Tensors]] | None = None
    """(params, fixed, text, config) -> (params, fixed) for other classes; None where what was
    learned belongs to the classes of training."""
    composition: Composition | None = None
    """How it is made of other methods; None for a method of its own."""
    linear: Callable[[Tensors, Tensors, C, H], Linear | None] = not_linear
    """(params, fixed, config, hyper) -> the logits of unit rows as one matrix and one vector; None
    where they are not affine in the row. `tests/heads/methods/test_linear.py` finds by regression
    which methods are, and expects this of them."""
    training_only: tuple[str, ...] = ()
    """Fixed tensors that no answer reads: a kept head leaves them out."""
    holds: tuple[str, ...] = ()
    """Tensors of a head that are features of the training images, or can be turned into them."""

    def __post_init__(self) -> None:
        """Read Config and Hyper off the signature of `prepare`."""
        _, *settings = inspect.signature(self.prepare).parameters.values()
        for name, parameter in zip(("config", "hyper"), settings, strict=False):
            if getattr(self, name) is _FROM_PREPARE and is_dataclass(parameter.annotation):
                object.__setattr__(self, name, parameter.annotation)

    def reads_weights(self, config: C) -> bool:
        """Tell whether class weights change anything."""
        return self.weighted or bool(self.stages(config))

    def reads_row_weights(self, config: C) -> bool:
        """Tell whether a row from a corpus may count less, or more, than a labelled image."""
        return self.weighs_corpus or self.reads_weights(config)

    @property
    def prepare_fields(self) -> tuple[str, ...]:
        """Name the hyper-parameters that `prepare` reads: grid points that agree on them share it.

        Declared by `number(..., prepare=True)`.
        """
        return tuple(f.name for f in fields(cast("Any", self.hyper)) if f.metadata.get("prepare"))


AnyMethod: TypeAlias = Method[Any, Any]
