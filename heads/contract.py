"""The contract between a method and everything else.

A method is a module of pure functions over named tensors. It never sees the query's labels, a
seed, a grid, a device or a file: the trainer draws batches, the selection walks the grids, the
protocols say who may see which rows.

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
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

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


@dataclass(frozen=True)
class Grid:
    """Candidate values of some hyper-parameters; the product is walked in the order written.

    Of a post grid the last axis is evaluated in one go (vmap over that axis alone), so whatever
    `combine` computes without it is computed once: write the cheapest axis last (Tip-Adapter:
    beta, then alpha). A train grid may also name whole-number fields of Config.
    """

    axes: Mapping[str, Sequence[Real]] = field(default_factory=dict)
    refine: int = 0
    """Of a train grid with one axis: rounds of halving, on a logarithmic scale, the decade on
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


@dataclass(frozen=True, kw_only=True)
class RoleRows:
    """The rows of one role as a method may see them, on the compute device."""

    x: Float[Tensor, "n d"]
    """Global features, float32, unit."""
    norms: Float[Tensor, " n"]
    """Length of the raw global features (1 for imported unit rows)."""
    labels: Int64[Tensor, " n"] | None
    """None for the pool: its labels are out of reach."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Unit rows by kind, or `kind.recipe` where the need named a recipe: views [n v d],
    crops [n k d], patches [n p d], view_patches [n v p d]. Those of the pool are gathered from
    the map when indexed."""
    lengths: Mapping[str, Float[Tensor, "n v"]] = field(default_factory=dict)
    """Of the support's views by their name in `extra`: length of the raw features."""
    among: "RoleRows | None" = None
    """Of rows that a transductive method is to answer but that are no queries (validation rows):
    the queries, without labels, which it answers together."""

    def get(self, kind: str) -> Any:
        """Return the rows of a kind, or None where the optional need was not met.

        `views` also finds `views.rrc50` where that is the only recipe of its kind.
        """
        return self.x if kind == "global" else find_kind(self.extra, kind)


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """What `prepare` gets of one task: support, pool and text; never val, never query."""

    support: RoleRows
    pool: RoleRows | None
    text: TextView | None
    """None where the data set has no texts: methods that need them say so."""
    classes: tuple[str, ...]
    seed: int
    weights: Float[Tensor, " n"] | None = None
    """Class weight of each support row, mean 1; None is 1 everywhere."""

    @property
    def c(self) -> int:
        """Number of classes."""
        return len(self.classes)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows drawn by the trainer from (seed, stage, step); the same for every grid point."""

    index: Int64[Tensor, " b"]
    """Position in the support (or pool), for leave-one-out; repeated rows share it."""
    view: Int64[Tensor, " b"]
    """Which augmented view was drawn; -1 for the clean image."""
    y: Int64[Tensor, " b"]
    """Labels; -1 in a pool batch."""
    weight: Float[Tensor, " b"]
    """0 marks padding; else the class weight of the row, mean 1 over the support."""
    x: Float[Tensor, "b d"]
    """Unit features of that view."""
    norms: Float[Tensor, " b"]
    """Length of its raw features."""
    step: Tensor
    """0-d, int64."""
    epoch: Tensor
    """0-d, int64."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Crops, view patches, strong views of the same rows, as `needs` says and `Sampler.take`; and
    `beside.<name>`, positions among the rows of a fixed tensor, as `Sampler.beside` says."""

    def get(self, kind: str) -> Tensor | None:
        """Return these rows of a kind, or None where the optional need was not met."""
        found: Tensor | None = self.x if kind == "global" else find_kind(self.extra, kind)
        return found


Loss: TypeAlias = Callable[..., tuple[Tensor, Tensors]]
"""(params, fixed, state, batch, config, hyper) -> (scalar, state)."""


@runtime_checkable
class Update(Protocol):
    """One optimiser as pure functions, safe under vmap.

    One that treats every number by itself may say `elementwise = True`: it is then called once for
    all stacked runs, without vmap, may overwrite the parameters, and finds in `hyper` a number
    where all runs agree, else one number a run in the leading axes.
    """

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
    """Which views, where the needs name several recipes of them."""
    drop_last: bool = False
    """Only full batches: rows over at the end of an epoch are left out of it."""
    take: tuple[tuple[str, int], ...] = ()
    """(kind or kind.recipe, count): draw so many views or crops of each row into `extra`;
    kinds that are not named come whole."""
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
    """(params, fixed, config, hyper) -> state; entries `watch.*` are shown and recorded."""
    leave: Callable[[Tensors, Tensors, Any, Any], Tensors] | None = None
    """(params, fixed, config, hyper) -> fixed, after the stage."""
    search: bool = False
    """Choose on `post_grid` after this stage; the next stage's hyper carries the choice."""


Scout: TypeAlias = Callable[[Sequence[Any], Tensor], Iterator[Tensor]]
"""(Hypers, rows [n d]) -> the logits [n c] at each of the Hypers, in their order."""


@runtime_checkable
class Method(Protocol):
    """A method's module, as the registry hands it out.

    `Config` and `Hyper` are frozen dataclasses: Config holds what changes a shape or a branch
    (static, hashable), Hyper holds floats that are traced.

    A module may also have `weighted = True`: it is not trained by batches, and reads
    `TaskView.weights`. It may have `notes(watch) -> list[str]`: what a reader must know of how
    training went, from the `watch.*` series of every repetition; and
    `defaults(shots) -> dict[str, float]`: values of Hyper that depend on the shots a class (None
    is all). One without stages may have `scout(task, config) -> Scout`: what a search needs to
    know, for less than `prepare` at every point of the train grid, and nearly the same; it is asked
    several times and may remember. The head at the chosen point is prepared as always.
    """

    name: str
    """On the command line."""
    summary: str
    """One line for `heads list`."""
    source: str
    """paper, released code or reconstruction, with the reference."""
    transductive: bool
    Config: type[Any]
    Hyper: type[Any]
    train_grid: Grid
    """Values that need another training."""
    post_grid: Grid
    """Values that only combine the terms anew."""

    def needs(self, config: Any) -> frozenset[Need]:
        """Name the features read; global rows of support and query where nothing else is said."""
        ...

    def stages(self, config: Any) -> tuple[Stage, ...]:
        """List the rounds of training; () is training-free."""
        ...

    def prepare(self, task: TaskView, config: Any, hyper: Any) -> tuple[Tensors, Tensors]:
        """Build (params, fixed) for ONE task in plain torch; not vmapped."""
        ...

    def terms(
        self, params: Tensors, fixed: Tensors, query: Tensors, config: Any, hyper: Any
    ) -> Tensors:
        """Compute the heavy, grid-free part for a chunk of query rows; query['x'] is [n d].

        A transductive method gets all query rows at once, and where others are to be answered
        (validation rows, which are no queries) those as query['asked'] [a d].
        """
        ...

    def combine(
        self, terms: Tensors, fixed: Tensors, config: Any, hyper: Any
    ) -> Float[Tensor, "n c"]:
        """Combine terms into logits; cheap, the post grid walks over it."""
        ...


def reads_weights(method: Method, config: Any) -> bool:
    """Tell whether class weights change anything: in every loss, or where a method says so."""
    return bool(method.stages(config)) or getattr(method, "weighted", False)


def number(
    default: Real,
    *,
    low: Real = -math.inf,
    high: Real = math.inf,
    above: Real = -math.inf,
    logits: Literal["affine", "smooth", ""] = "",
    whole: bool = False,
) -> Any:
    """Declare a number of Config or Hyper together with what `--set` accepts.

    Args:
        default: Its value where nobody says.
        low: Smallest value.
        high: Largest value.
        above: Values must be larger than this.
        logits: How they depend on it, which shortens the walk of a grid (`heads.selection.curves`).
        whole: Only whole numbers, in Hyper where every number is a float.
    """
    said = {"low": low, "high": high, "above": above, "logits": logits, "whole": whole}
    return field(default=default, metadata=said)


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


def find_kind(extra: Mapping[str, Any], kind: str) -> Any:
    """Look up `kind` or, where it is the only one, `kind.<recipe>`; None where there is none."""
    if kind in extra:
        return extra[kind]
    recipes = [name for name in extra if name.startswith(f"{kind}.")]
    return extra[recipes[0]] if len(recipes) == 1 else None
