"""The contract between a method and everything else.

A method is one value, `METHOD`, made of pure functions over named tensors. It never sees the
query's labels, a seed, a grid, a device or a file: the trainer draws batches, the selection walks
the grids, the protocols say who may see which rows.

    stages == ()   training-free: prepare -> terms -> combine
    stages != ()   prepare -> (loss, gradient, update) x steps, stage by stage -> terms -> combine

Everything below `prepare` runs under `torch.func.vmap` over tasks s (own data) and grid points g
(shared data): no boolean-mask indexing, unique, nonzero, `.item()`, no random draws, no `if` on a
tensor. Hyper-parameters inside `loss`, `start`, `leave`, `update`, `terms` and `combine` are 0-d
tensors; inside `prepare` they are floats.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    runtime_checkable,
)

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.keys import TextKind as TextKind
from heads.text_view import TextView

Tensors: TypeAlias = dict[str, Tensor]
"""Named tensors: parameters, fixed inputs, state or terms."""

Real: TypeAlias = int | float
"""A number as people write it: 1 is as good as 1.0."""

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


@dataclass(frozen=True)
class Grid:
    """Candidate values of some hyper-parameters; the product is walked in the order written.

    Of a post grid the last axis is evaluated in one go (vmap over that axis alone), so whatever
    `combine` computes without it is computed once: write the cheapest axis last (Tip-Adapter:
    beta, then alpha). A train grid may also name whole-number fields of Config.
    """

    axes: Mapping[str, Sequence[Real]] = field(default_factory=dict)
    refine: int = 0
    """For a train grid with one axis: rounds of halving, on a logarithmic scale, the decade on
    either side of the best value."""

    def points(self) -> list[dict[str, float]]:
        """List every combination; a grid without axes has one empty point."""
        names = list(self.axes)
        return [
            {name: float(value) for name, value in zip(names, values, strict=True)}
            for values in itertools.product(*(self.axes[n] for n in names))
        ]

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.axes.values())

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.points())


class Kind(NamedTuple):
    """Which features of an image: a kind beside the global ones, and its recipe or variant."""

    name: str
    """views, crops, patches or view_patches."""
    recipe: str = ""
    """Empty where the need took any."""

    def __str__(self) -> str:
        return f"{self.name}.{self.recipe}" if self.recipe else self.name


@runtime_checkable
class LazyRows(Protocol):
    """Unit rows that are read when they are gathered; no tensor, and it does not pass for one."""

    @property
    def shape(self) -> torch.Size:
        """Shape of all rows: [n v d], [n k d], [n p d], [n v p d]."""
        ...

    def gather(self, index: Int64[Tensor, "*b"], pick: Int64[Tensor, "*p"] | None = None) -> Tensor:
        """Read rows, or with `pick` [*b] or [*b k] some views or crops of each."""
        ...


def gather(
    values: Tensor | LazyRows, index: Int64[Tensor, "*b"], pick: Int64[Tensor, "*p"] | None = None
) -> Tensor:
    """Gather rows wherever they are: values[index], or values[index, pick].

    Args:
        values: [n ...].
        index: Rows.
        pick: Of each row one entry ([*b]) or several ([*b k]) along the second axis.
    """
    if not isinstance(values, Tensor):
        return values.gather(index, pick)
    if pick is None:  # twice as fast as values[index]
        return values.index_select(0, index.flatten()).reshape(*index.shape, *values.shape[1:])
    return values[index if pick.dim() == index.dim() else index[..., None], pick]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of images as a method sees them, whatever their role; on the compute device."""

    x: Float[Tensor, "n d"]
    """Global features, float32, unit."""
    norms: Float[Tensor, " n"]
    """Length of the raw global features (1 for imported unit rows)."""
    labels: Int64[Tensor, " n"] | None = None
    """None for the pool, and for new images: their labels are out of reach."""
    weights: Float[Tensor, " n"] | None = None
    """Class weight of each row, mean 1; None is 1 everywhere."""
    kinds: Mapping[Kind, Tensor | LazyRows] = field(default_factory=dict)
    """Unit rows of what the method needs besides: views [n v d], crops [n k d], patches [n p d],
    view_patches [n v p d]."""
    lengths: Mapping[Kind, Float[Tensor, "n v"]] = field(default_factory=dict)
    """Lengths of the raw features of the support's views."""
    among: "Rows | None" = None
    """For a transductive method that is to answer rows which are no queries (validation rows): the
    queries, without labels, together with which it answers them."""

    @staticmethod
    def of(
        x: Float[Tensor, "n d"],
        labels: Int64[Tensor, " n"] | None = None,
        kinds: Mapping[Kind, Tensor | LazyRows] | None = None,
    ) -> "Rows":
        """Wrap unit rows whose own length is lost."""
        return Rows(x=x, norms=x.new_ones(len(x)), labels=labels, kinds=kinds or {})

    def __len__(self) -> int:
        return len(self.norms)

    @property
    def y(self) -> Int64[Tensor, " n"]:
        """Labels of rows that have them."""
        assert self.labels is not None, "these rows have no labels"
        return self.labels

    def get(self, kind: str, recipe: str = "") -> Tensor | None:
        """Return the rows of a kind, or None where the optional need was not met.

        Without a recipe it finds the only recipe of that kind.
        """
        values = find_kind(self.kinds, Kind(kind, recipe))
        if values is None or isinstance(values, Tensor):
            return values
        return values.gather(torch.arange(len(self), device=self.x.device))

    def mean_of_views(self, *, raw: bool = False) -> Float[Tensor, "n d"]:
        """Return one unit row an image: the mean of its views, or its clean row without any.

        Args:
            raw: Average raw features, where a longer one counts more, as released caches do; else
                unit ones.
        """
        views = self.get("views")
        if views is None:
            return self.x
        lengths = find_kind(self.lengths, Kind("views")) if raw else None
        weighed = views if lengths is None else views * lengths[..., None]
        return F.normalize(weighed.mean(dim=1), dim=-1)

    def take(self, index: slice | Int64[Tensor, " k"]) -> "Rows":
        """Take some rows with everything that belongs to them; what is lazy is read."""
        if isinstance(index, slice):
            at = torch.arange(*index.indices(len(self)), device=self.x.device)
        else:
            at = index
        return Rows(
            x=self.x[index],
            norms=self.norms[index],
            labels=None if self.labels is None else self.labels[index],
            weights=None if self.weights is None else self.weights[index],
            kinds={
                kind: values[index] if isinstance(values, Tensor) else values.gather(at)
                for kind, values in self.kinds.items()
            },
            lengths={kind: values[index] for kind, values in self.lengths.items()},
            among=self.among,
        )


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """What `prepare` gets of one task: support, pool and text; never val, never query."""

    support: Rows
    pool: Rows | None
    text: TextView | None
    """None where the data set has no texts: methods that need them say so."""
    classes: tuple[str, ...]
    seed: int

    @property
    def c(self) -> int:
        """Number of classes."""
        return len(self.classes)


@dataclass(frozen=True, kw_only=True)
class Batch(Rows):
    """Rows drawn by the trainer from (seed, stage, step); the same for every grid point."""

    labels: Int64[Tensor, " n"]
    """-1 in a batch of the pool."""
    weights: Float[Tensor, " n"]
    """0 marks padding; else the class weight of the row, mean 1 over the support."""
    index: Int64[Tensor, " n"]
    """Position in the support (or pool), for leave-one-out; repeated rows share it."""
    view: Int64[Tensor, " n"]
    """Which augmented view `x` is; -1 for the clean image."""
    step: Tensor
    """0-d, int64."""
    epoch: Tensor
    """0-d, int64."""
    beside: Mapping[str, Int64[Tensor, " m"]] = field(default_factory=dict)
    """Name of a fixed tensor -> positions among its rows, as `Sampler.beside` says."""


Loss: TypeAlias = Callable[..., tuple[Tensor, Tensors]]
"""(params, fixed, state, batch, config, hyper) -> (scalar, state)."""


@runtime_checkable
class Update(Protocol):
    """One optimiser as pure functions, safe under vmap."""

    @property
    def elementwise(self) -> bool:
        """Tell whether it treats every number by itself.

        It is then called once for all stacked runs, without vmap, may overwrite the parameters,
        and finds in `hyper` a number where all runs agree, else one number a run in the leading
        axes.
        """
        ...

    def init(self, params: Tensors) -> Tensors:
        """Return the optimiser's state for these parameters."""
        ...

    def step(
        self,
        params: Tensors,
        grads: Tensors,
        state: Tensors,
        *,
        step: int,
        steps: int,
        config: Any,
        hyper: Any,
        fixed: Tensors,
        per_epoch: int = 1,
    ) -> tuple[Tensors, Tensors]:
        """Return parameters and state after step `step` (from 0) of `steps`, `per_epoch` an epoch.

        `params` and `grads` hold what the stage trains. The state, and the gradients, may be
        overwritten in place; the parameters may not.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the number of steps of a stage may depend on."""

    support: int
    pool: int
    classes: int
    shots: int
    """Largest number of support rows of a class."""
    batch: int
    """Rows of a batch after the sampler's rule."""
    per_epoch: int
    """Steps of one pass over the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How a stage draws its batches; built by `heads.training.samplers`."""

    kind: Literal["full", "shuffled", "balanced", "pool", "view_pool"]
    size: int = 0
    """Rows of a batch (shuffled, pool, view_pool); 0 is all."""
    classes: int = 0
    """Classes of a balanced batch; 0 is all."""
    each: int = 0
    """Images of each class in a balanced batch; 0 is all that there are."""
    views: int = 1
    """Views of each image in a balanced batch."""
    augment: bool = True
    """Draw one of the cached views where there are any; else the clean image."""
    recipe: str = ""
    """Recipe of the views, where the needs name several."""
    drop_last: bool = False
    """Only full batches: rows over at the end of an epoch are left out of it."""
    take: tuple[tuple[Kind, int], ...] = ()
    """(kind, count): draw so many views or crops of each row; other kinds come whole."""
    beside: tuple[tuple[str, int], ...] = ()
    """(name of a fixed tensor, count): draw so many of its rows beside each batch, without
    regard to the batch's own; a step takes fewer where the tensor has fewer."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One round of training: what moves, by which loss, on which batches, for how long."""

    trains: frozenset[str]
    """Names of the parameters that move; the others stay."""
    loss: Loss
    batches: Sampler
    steps: Callable[[Sizes, Any], int]
    update: Update
    keep: Literal["last", "best-val"] = "last"
    """best-val: the look with the best validation accuracy, of equals the latest."""
    look: int = 0
    """Steps between two looks at validation; 0 looks at the end of every epoch."""
    patience: int = 0
    """Looks without a better one after which a run has ended; 0 never ends one early."""
    start: Callable[[Tensors, Tensors, Any, Any], Tensors] | None = None
    """(params, fixed, config, hyper) -> state."""
    watch: tuple[str, ...] = ()
    """Numbers of the state that are recorded at the end of every epoch."""
    leave: Callable[[Tensors, Tensors, Any, Any], Tensors] | None = None
    """(params, fixed, config, hyper) -> fixed, after the stage."""
    search: bool = False
    """Choose on `post_grid` after this stage; the next stage's hyper carries the choice."""


Scout: TypeAlias = Callable[[Sequence[Any], Tensor], Iterator[Tensor]]
"""(Hypers, rows [n d]) -> the logits [n c] at each of the Hypers, in their order."""

Watched: TypeAlias = Mapping[str, Sequence[float]]
"""State that a stage asked to record, by name: one number at the end of every epoch."""

V = TypeVar("V")

C = TypeVar("C")
"""A method's Config: a frozen dataclass of what changes a shape or a branch; static, hashable."""
H = TypeVar("H")
"""A method's Hyper: a frozen dataclass of floats, which are traced."""


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """The Config or Hyper of a method that has nothing to set."""


_NOTHING: type[Any] = Nothing


@dataclass(frozen=True, kw_only=True)
class WithText:
    """The Config of a method that reads one anchor a class."""

    text: TextKind | None = None
    """What the anchors are made of; None is the data set's default."""


SUPPORT_AND_QUERY: frozenset[Need] = frozenset({Need(role="query"), Need(role="support")})
"""Global features of the shots and of the queries."""

SHOTS_WITH_VIEWS: frozenset[Need] = SUPPORT_AND_QUERY | {
    Need(role="support", kind="views", recipe="rrc50", optional=True)
}
"""The same and, where there are any, the augmented views of the shots."""


def of_texts(text: TextView, like: Tensor) -> TaskView:
    """Return a task that has class texts and not a single image.

    Args:
        text: The class texts.
        like: Any tensor [... d] of the device and type of the features.
    """
    rows = Rows.of(like.new_zeros(0, like.shape[-1]))
    classes = ("",) * len(text.anchors())
    return TaskView(support=rows, pool=None, text=text, classes=classes, seed=0)


def support_and_query(config: Any) -> frozenset[Need]:
    """Read global features of the shots and of the queries."""
    return SUPPORT_AND_QUERY


def shots_with_views(config: Any) -> frozenset[Need]:
    """Read the shots, their augmented views where there are any, and the queries."""
    return SHOTS_WITH_VIEWS


def no_stages(config: Any) -> tuple[Stage, ...]:
    """Train nothing: `prepare` holds the whole method."""
    return ()


def last_logits(terms: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Float[Tensor, "n c"]:
    """Return the term `logits`: there is nothing left to combine."""
    return terms["logits"]


def no_notes(watched: Sequence[Watched]) -> list[str]:
    """Say nothing."""
    return []


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
    config: type[C] = _NOTHING
    hyper: type[H] = _NOTHING
    needs: Callable[[C], frozenset[Need]] = support_and_query
    """Name the features read."""
    stages: Callable[[C], tuple[Stage, ...]] = no_stages
    """List the rounds of training; () is training-free."""
    combine: Callable[[Tensors, Tensors, C, H], Tensor] = last_logits
    """(terms, fixed, config, hyper) -> logits [n c]; cheap, the post grid walks over it."""
    train_grid: Grid = Grid()
    """Values that need another training."""
    post_grid: Grid = Grid()
    """Values that only combine the terms anew."""
    weighted: bool = False
    """Reads `Rows.weights` of the support in `prepare`; what is trained by batches always does."""
    notes: Callable[[Sequence[Watched]], list[str]] = no_notes
    """What a reader must know of how training went, from what every repetition recorded."""
    defaults: Callable[[int | None], Mapping[str, float]] = no_defaults
    """Values of Hyper that depend on the shots a class (None is all)."""
    scout: Callable[[TaskView, C], Scout] | None = None
    """What a search needs to know, for less than `prepare` at every point of the train grid, and
    nearly the same; it is asked several times and may remember. The head at the chosen point is
    prepared as always. For a method without stages."""

    rebind: Callable[[Tensors, Tensors, TextView, C], tuple[Tensors, Tensors]] | None = None
    """(params, fixed, text, config) -> (params, fixed) for other classes; None where what was
    learned belongs to the classes of training."""
    training_only: tuple[str, ...] = ()
    """Fixed tensors that no answer reads: a kept head leaves them out."""
    holds: tuple[str, ...] = ()
    """Tensors of a head that are features of the training images, or can be turned into them."""

    def reads_weights(self, config: C) -> bool:
        """Tell whether class weights change anything."""
        return self.weighted or bool(self.stages(config))

    @property
    def prepare_fields(self) -> tuple[str, ...]:
        """Name the hyper-parameters that `prepare` reads: grid points that agree on them share it.

        Declared by `number(..., prepare=True)`.
        """
        return tuple(f.name for f in fields(cast("Any", self.hyper)) if f.metadata.get("prepare"))


AnyMethod: TypeAlias = Method[Any, Any]


def number(
    default: Real,
    *,
    low: Real = -math.inf,
    high: Real = math.inf,
    above: Real = -math.inf,
    logits: Literal["affine", "smooth", ""] = "",
    whole: bool = False,
    prepare: bool = False,
) -> Any:
    """Declare a number of Config or Hyper together with what a user may set it to.

    Args:
        default: Its value where nobody says.
        low: Smallest value.
        high: Largest value.
        above: Values must be larger than this.
        logits: How they depend on it, which shortens the walk of a grid (`heads.selection.curves`).
        whole: Only whole numbers, in Hyper where every number is a float.
        prepare: Of Hyper: `prepare` reads it, so other values need another call.
    """
    metadata = {"low": low, "high": high, "above": above, "logits": logits}
    return field(default=default, metadata=metadata | {"whole": whole, "prepare": prepare})


def with_values(hyper: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of a Hyper with some fields replaced, by floats or by 0-d tensors.

    The constructor is not run: its checks are for what people type, and they branch on values.
    """
    changed = copy.copy(hyper)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def with_static(config: Any, values: Mapping[str, float]) -> Any:
    """Return a copy of a Config with those of the values that are its own, as whole numbers."""
    own = {f.name for f in fields(config)}
    return replace(config, **{n: int(v) for n, v in values.items() if n in own})


def hyper_values(hyper: Any) -> dict[str, Any]:
    """Return a Hyper's fields by name."""
    return {f.name: getattr(hyper, f.name) for f in fields(hyper)}


def find_kind(kinds: Mapping[Kind, V], kind: Kind) -> V | None:
    """Look up a kind; without a recipe its only one. None where there is none, or several."""
    if kind in kinds:
        return kinds[kind]
    recipes = [] if kind.recipe else [own for own in kinds if own.name == kind.name]
    return kinds[recipes[0]] if len(recipes) == 1 else None
