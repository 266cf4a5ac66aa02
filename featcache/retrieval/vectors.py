"""The vectors of one kind in one or several caches, numbered in a fixed order.

    cache 0: row 0: part 0, 1, ...   row 1: ...   cache 1: ...

A vector is the feature of an image, or of one of its patches, views or crops: its parts. Rows whose
image could not be read, or that are in no split, have no vectors. Blocks are read from the shards
in order, so that memory does not grow with the number of vectors.
"""

from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from featcache.errors import CacheError, MissingComponentError, UnknownNameError, UsageError
from featcache.retrieval.lacking import how_to_add
from featcache.types import FeatureSet, Releasable, parse_component
from featcache.wording import Argument

VECTOR_KINDS = ("global", "patches", "views", "crops")
"""What a vector is the feature of: an image, or one of its patches, views or crops."""
BLOCK_BYTES = 64 * 2**20
"""Bytes of a block in float32."""
MAPPED_BYTES = 2**30
"""Bytes of vectors in float32 after which shards are unmapped, because their pages count as memory
of the process until then. Few vectors are searched again without mapping them again."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The vectors of one cache."""

    features: FeatureSet
    component: str
    """Folder name of the component that holds them."""
    rows: Int64[np.ndarray, " n"]
    """Rows of the listing that have vectors, ascending."""

    @property
    def parts(self) -> int:
        """Vectors of each row: 1 for global features."""
        return prod(self.features.components[self.component].shape[:-1])

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.features.components[self.component].shape[-1]

    def release(self) -> None:
        """Unmap the files that were read; the next reading maps them again."""
        rows = self.features.components[self.component]
        if isinstance(rows, Releasable):
            rows.release()

    def all_rows(self) -> Int64[np.ndarray, " n"]:
        """Return the rows that have vectors of this component, in any split, ascending."""
        return _rows(self.features, self.component, None)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where vectors come from."""

    source: Int64[np.ndarray, " n"]
    """Position of the cache among the sources."""
    row: Int64[np.ndarray, " n"]
    """Row of its listing."""
    part: Int64[np.ndarray, " n"]
    """Which patch, view or crop of the image; 0 for global features."""


class Vectors:
    """Unit vectors of one kind, in the order that the module states.

    Example:
        >>> import featcache
        >>> cache = featcache.extract("fieldguide", "tiny", limit=8)
        >>> vectors = Vectors([cache])
        >>> len(vectors) == len(vectors.take(np.arange(len(vectors))))
        True
    """

    def __init__(
        self,
        caches: Sequence[FeatureSet],
        kind: str = "global",
        *,
        recipe: str | None = None,
        splits: Collection[str] | None = None,
    ) -> None:
        """Choose the vectors; none is read yet.

        Args:
            caches: Caches of the same feature key.
            kind: One of `VECTOR_KINDS`.
            recipe: Recipe of views and crops, or variant of patches; None for any, for patches that
                of the first cache.
            splits: Splits whose rows are taken; None for all. A cache that has none of them raises.

        Raises:
            UsageError: If there is no cache, or a recipe of global vectors.
            CacheError: If two caches have different feature keys, or a different width.
            MissingComponentError: If a cache has no vectors of this kind.
            UnknownNameError: If the kind or recipe is unknown, or a cache has none of the splits.
        """
        if kind not in VECTOR_KINDS:
            raise UnknownNameError("kind of vectors", kind, VECTOR_KINDS)
        if kind == "global" and recipe is not None:
            raise UsageError(Argument("recipe", recipe), " has no effect on global vectors.")
        if not caches:
            raise UsageError("Vectors come from one cache or more, got none.")
        for cache in caches[1:]:
            _refuse_other_key(caches[0], cache)
        self.kind = kind
        first = _source(caches[0], kind, recipe, splits)
        if kind == "patches":  # those of different variants are not comparable
            recipe = component_recipe(first.component)
        self.sources = (first, *(_source(cache, kind, recipe, splits) for cache in caches[1:]))
        self._mapped = 0
        self._count()
        widths = {s.dim for s in self.sources}
        if len(widths) > 1:
            raise CacheError(
                f"The caches hold {kind} of widths {sorted(widths)}, and one search needs one."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _count(self) -> None:
        self._ends = np.cumsum([len(s.rows) * s.parts for s in self.sources])

    def within(self, rows: Sequence[Int64[np.ndarray, " _"]]) -> "Vectors":
        """Return the vectors of some rows of each cache.

        Args:
            rows: Ascending rows of each cache, in the order of `sources`; rows that have no vectors
                are left out.
        """
        fewer = copy(self)
        fewer.sources = tuple(
            replace(source, rows=np.intersect1d(source.rows, some))
            for source, some in zip(self.sources, rows, strict=True)
        )
        fewer._count()
        return fewer

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.sources[0].dim

    def blocks(self, size: int | None = None) -> Iterator[Float32[Tensor, "b d"]]:
        """Yield all unit vectors in order, whole rows at a time.

        Args:
            size: Most vectors of a block, rounded up to a whole row; None for 64 MiB.

        Raises:
            CacheError: If a vector is not finite or has no length.
            CorruptCacheError: If a shard is damaged.
        """
        size = size or max(1, BLOCK_BYTES // (4 * self.dim))
        for source in self.sources:
            step = max(1, size // source.parts)
            for start in range(0, len(source.rows), step):
                rows = source.rows[start : start + step]
                values = self._read(source, rows)
                yield values.reshape(-1, values.shape[-1])

    def _read(self, source: Source, rows: Int64[np.ndarray, " r"]) -> Float32[Tensor, "r ..."]:
        values = source.features.unit(source.component, rows)
        self._mapped += values.nbytes
        if self._mapped >= MAPPED_BYTES:
            for each in self.sources:
                each.release()
            self._mapped = 0
        return values

    def places(self, positions: Int64[np.ndarray, " n"]) -> Places:
        """Tell where vectors come from.

        Raises:
            UsageError: If a position is out of range.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise UsageError(f"positions must be within 0..{len(self) - 1}.")
        source = np.searchsorted(self._ends, positions, side="right")
        row, part = np.zeros_like(positions), np.zeros_like(positions)
        for number, own in enumerate(self.sources):
            where = source == number
            begin = int(self._ends[number]) - len(own.rows) * own.parts
            at = positions[where] - begin
            row[where], part[where] = own.rows[at // own.parts], at % own.parts
        return Places(source=source.astype(np.int64), row=row, part=part)

    def take(self, positions: Int64[np.ndarray, " n"]) -> Float32[Tensor, "n d"]:
        """Gather unit vectors in the given order; errors as `blocks` and `places`."""
        places = self.places(positions)
        out = torch.empty(len(places.row), self.dim)
        for number, own in enumerate(self.sources):
            where = np.flatnonzero(places.source == number)
            rows, back = np.unique(places.row[where], return_inverse=True)
            step = max(1, BLOCK_BYTES // (4 * self.dim * own.parts))  # whole rows are read
            order = np.argsort(back, kind="stable")
            bounds = np.searchsorted(back[order], np.arange(0, len(rows) + step, step))
            for first, begin, end in zip(
                range(0, len(rows), step), bounds[:-1], bounds[1:], strict=True
            ):
                values = self._read(own, rows[first : first + step])
                values = values.reshape(-1, own.parts, self.dim)
                part = order[begin:end]
                out[where[part]] = values[back[part] - first, places.part[where[part]]]
        return out

    def positions(self, places: Places) -> Int64[np.ndarray, " n"]:
        """Return the positions of vectors; the inverse of `places`.

        Raises:
            UsageError: If a row has no vectors here.
        """
        positions = np.zeros_like(places.row)
        for number, own in enumerate(self.sources):
            where = np.flatnonzero(places.source == number)
            at = np.minimum(np.searchsorted(own.rows, places.row[where]), len(own.rows) - 1)
            if len(where) and not (len(own.rows) and (own.rows[at] == places.row[where]).all()):
                raise UsageError("Some of these rows have no vectors here.")
            begin = int(self._ends[number]) - len(own.rows) * own.parts
            positions[where] = begin + at * own.parts + places.part[where]
        return positions


def _source(
    cache: FeatureSet, kind: str, recipe: str | None, splits: Collection[str] | None
) -> Source:
    fitting = [kind] if kind == "global" else cache.fitting(kind, recipe)
    fitting = [name for name in fitting if name in cache.components]
    if not fitting:
        have = ", ".join(sorted(cache.components)) or "nothing"
        of = f" of {recipe}" if recipe else ""
        raise MissingComponentError(
            f"{cache.path} has no {kind}{of} to search; it holds {have}. ",
            how_to_add(cache, kind, recipe),
        )
    name = max(fitting, key=lambda n: int(cache.components[n].present().sum()))
    return Source(features=cache, component=name, rows=_rows(cache, name, splits))


def _rows(
    cache: FeatureSet, component: str, splits: Collection[str] | None
) -> Int64[np.ndarray, " n"]:
    present = cache.components[component].present() & cache.ok & _in_splits(cache, splits)
    return np.flatnonzero(present)


def _in_splits(cache: FeatureSet, splits: Collection[str] | None) -> np.ndarray:
    listed = cache.listing.splits
    chosen = [name for name in listed if splits is None or name in splits]
    if splits is not None and not chosen:
        raise UnknownNameError("split", ", ".join(sorted(splits)), listed)
    inside = np.zeros(len(cache.listing), dtype=bool)
    for name in chosen:
        inside[listed[name]] = True
    return inside


def _refuse_other_key(first: FeatureSet, other: FeatureSet) -> None:
    """Raise if vectors of two caches cannot be compared.

    Raises:
        CacheError: If their feature keys differ.
    """
    if first.key != other.key:
        raise CacheError(
            f"{other.listing.dataset} has features of {other.backbone}, key {other.key.digest()}, "
            f"and {first.listing.dataset} of {first.backbone}, key {first.key.digest()}. "
            "Only features of one key can be compared; extract both with the same backbone and "
            "weights."
        )


def component_recipe(component: str) -> str:
    """Return the recipe or variant of a component: rrc50 for views.rrc50-10; empty for global.

    Example:
        >>> component_recipe("views.rrc50-10"), component_recipe("global")
        ('rrc50', '')
    """
    key = parse_component(component)
    return key.variant or key.recipe
