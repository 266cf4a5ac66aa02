"""Rows of images, and the task that a method learns from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.last_block import LastBlock
from featcache.types import Releasable
from heads.text_view import TextView

Tensors: TypeAlias = dict[str, Tensor]
"""Named tensors: parameters, fixed inputs, state or terms."""

V = TypeVar("V")


class Kind(NamedTuple):
    """Which features of an image: a kind beside the global ones, and its recipe or variant."""

    name: str
    """views, crops, patches, view_patches or tokens."""
    recipe: str = ""
    """Empty where the need took any."""

    def __str__(self) -> str:
        return f"{self.name}.{self.recipe}" if self.recipe else self.name


@runtime_checkable
class LazyRows(Protocol):
    """Rows that are read when they are gathered; no tensor, and it does not pass for one."""

    @property
    def shape(self) -> torch.Size:
        """Shape of all rows: [n v d], [n k d], [n p d], [n v p d], [n p+1 w]."""
        ...

    def gather(self, index: Int64[Tensor, "*b"], pick: Int64[Tensor, "*p"] | None = None) -> Tensor:
        """Read rows, or with `pick` [*b] or [*b k] some views or crops of each."""
        ...


class ChosenRows:
    """Some rows of lazy rows, in an order of their own; lazy as well."""

    def __init__(self, values: LazyRows, rows: Int64[Tensor, " k"]) -> None:
        self._values, self._rows = values, rows

    @property
    def shape(self) -> torch.Size:
        """Shape of the chosen rows."""
        return torch.Size((len(self._rows), *self._values.shape[1:]))

    def gather(self, index: Int64[Tensor, "*b"], pick: Int64[Tensor, "*p"] | None = None) -> Tensor:
        """Read rows, or some views or crops of each, as `LazyRows` does."""
        return self._values.gather(self._rows.to(index.device)[index], pick)

    def release(self) -> None:
        """Unmap the files that were read, if there are any."""
        if isinstance(self._values, Releasable):
            self._values.release()


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
    """Weight of each row; None is 1 everywhere. Class weights have mean 1; a row from a corpus has
    the weight of the corpus."""
    kinds: Mapping[Kind, Tensor | LazyRows] = field(default_factory=dict)
    """Unit rows of what the method needs besides: views [n v d], crops [n k d], patches [n p d],
    view_patches [n v p d]; and tokens [n p+1 w], lazy in every role and not normalised."""
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

    @property
    def row_weights(self) -> Float[Tensor, " n"]:
        """Weight of each row, 1 where none are given."""
        return torch.ones_like(self.x[:, 0]) if self.weights is None else self.weights

    @property
    def together(self) -> "Rows":
        """Rows that a transductive method answers together: `among`, or these."""
        return self if self.among is None else self.among

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

    def each_view(self) -> "Rows":
        """Return every view as a row with the label and weight of its image, without other kinds.

        Without views these are the rows themselves.

        Example:
            >>> views = torch.eye(2)[None].expand(3, 2, 2)
            >>> kinds = {Kind("views", "rrc50"): views}
            >>> Rows.of(torch.ones(3, 2), torch.tensor([0, 1, 1]), kinds).each_view().y
            tensor([0, 0, 1, 1, 1, 1])
        """
        views = self.get("views")
        if views is None:
            return Rows(x=self.x, norms=self.norms, labels=self.labels, weights=self.weights)
        v = views.shape[1]
        return Rows(
            x=views.flatten(0, 1),
            norms=self.norms.repeat_interleave(v),
            labels=None if self.labels is None else self.labels.repeat_interleave(v),
            weights=None if self.weights is None else self.weights.repeat_interleave(v),
        )

    def take(self, index: slice | Int64[Tensor, " k"], *, read: bool = True) -> "Rows":
        """Take some rows with everything that belongs to them.

        Args:
            index: Positions of the rows.
            read: Read what is lazy now; else it stays lazy.
        """
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
                kind: values[index]
                if isinstance(values, Tensor)
                else (values.gather(at) if read else ChosenRows(values, at))
                for kind, values in self.kinds.items()
            },
            lengths={kind: values[index] for kind, values in self.lengths.items()},
            among=self.among,
        )


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """What `prepare` gets of one task: support, pool, corpus, text; never val, never query."""

    support: Rows
    pool: Rows | None
    text: TextView | None
    """None where the data set has no texts: methods that need them say so."""
    classes: tuple[str, ...]
    seed: int
    corpus: Rows | None = None
    """Rows with pseudo-labels, for methods that read a corpus in a role of its own; for others they
    are part of the support."""
    retrieved: int = 0
    """How many rows at the end of the support come from a corpus: never validation rows."""
    last_block: Callable[[], LastBlock] | None = None
    """Reads the block that tokens go into; None where the rows are in no cache."""

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


def of_texts(text: TextView, like: Tensor) -> TaskView:
    """Return a task that has class texts and not a single image.

    Args:
        text: The class texts.
        like: Any tensor [... d] of the device and type of the features.
    """
    rows = Rows.of(like.new_zeros(0, like.shape[-1]))
    classes = ("",) * len(text.anchors())
    return TaskView(support=rows, pool=None, text=text, classes=classes, seed=0)


def find_kind(kinds: Mapping[Kind, V], kind: Kind) -> V | None:
    """Look up a kind; without a recipe its only one. None where there is none, or several."""
    if kind in kinds:
        return kinds[kind]
    recipes = [] if kind.recipe else [own for own in kinds if own.name == kind.name]
    return kinds[recipes[0]] if len(recipes) == 1 else None
