"""Build an index, append to it, build it again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from featcache.errors import CacheError, CorruptCacheError, UnknownNameError, UsageError
from featcache.progress import Report
from featcache.retrieval.indexes.arrays import CURE, write_array
from featcache.retrieval.indexes.description import Description, check_index_name
from featcache.retrieval.indexes.filling import fill, trained
from featcache.retrieval.indexes.folder import (
    index_names,
    put,
    read_description,
    replacing,
    verify_index,
)
from featcache.retrieval.indexes.opening import read_order, read_structure
from featcache.retrieval.indexes.order import Order
from featcache.retrieval.indexes.recall import Recalling
from featcache.retrieval.indexes.state import covered, freshness
from featcache.retrieval.kinds.registry import default_kind, structure_of
from featcache.retrieval.kinds.structure import Layout, Pieces, Structure, chosen
from featcache.retrieval.vectors import Vectors, component_recipe
from featcache.store.cache import Cache
from featcache.store.format.identity import slug
from featcache.store.library import cache_root
from featcache.store.library import caches as all_caches
from featcache.types import FeatureSet
from featcache.wording import Argument


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came of a request to build or to append."""

    index: Description
    added: int
    """Vectors that were added; 0 if the index was up to date."""


def build_index(
    caches: Sequence[FeatureSet],
    of: str = "global",
    *,
    kind: str | None = None,
    name: str | None = None,
    recipe: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    root: Path | None = None,
    report: Report | None = None,
) -> Built:
    """Build an index over the vectors of caches, beside them; replaces one of the same name.

    Vectors are streamed from the shards. The recall of an approximate kind is measured on vectors
    of its own.

    Args:
        caches: Caches of the same feature key.
        of: Kind of vectors: global, patches, views or crops.
        kind: flat, ivf, hnsw or ivfpq; None for flat, and above 200,000 vectors ivf or ivfpq.
        name: Name of the index; None for one of data sets, backbone and kind of vectors.
        recipe: Recipe of views and crops, or variant of patches; None for any.
        parameters: Parameters of the kind that replace its default ones.
        root: Folder of all caches; None for that of the first cache.
        report: Told what is done, how much of it, of how much.

    Raises:
        UsageError: If a name or a parameter is invalid, or there are no vectors.
        CacheError: If the caches do not fit each other, or writing fails.
        MissingComponentError: If a cache has no such vectors.

    Example:
        >>> import featcache
        >>> cache = featcache.extract("fieldguide", "tiny", limit=48)
        >>> build_index([cache], name="moths").index.kind
        'flat'
    """
    vectors = Vectors(caches, of, recipe=recipe)
    _refuse_twice(vectors)
    root = caches[0].path.parent.parent if root is None else root
    if not len(vectors):
        raise UsageError(
            f"{caches[0].path} has no {of} of readable images yet, so there is nothing to index."
        )
    kind = kind or default_kind(len(vectors), vectors.dim)
    structure_type = structure_of(kind)
    if structure_type is None:
        if parameters:
            raise UnknownNameError(
                ("parameter of ", Argument("kind", "flat")), next(iter(parameters)), ()
            )
        wanted: dict[str, int] = {}
    else:
        wanted = chosen(structure_type, len(vectors), vectors.dim, parameters or {})
    name = check_index_name(name or _default_name(vectors))
    if (old := _before(root, name, vectors)) and (old.kind, old.parameters) == (kind, wanted):
        return Built(index=old, added=0)
    states = tuple(covered(source) for source in vectors.sources)
    structure = structure_type(vectors.dim, wanted) if structure_type else None
    with replacing(root, name) as folder:
        recalling = Recalling(vectors)
        if structure is not None:
            trained(structure, vectors, report)
            fill(structure, vectors, None, recalling.watch, report)
        sources, rows = _rows(vectors)
        order = Order(sources, rows, [s.parts for s in states], len(vectors))
        index = Description(
            name=name,
            kind=kind,
            of=of,
            dim=vectors.dim,
            vectors=len(vectors),
            covered=states,
            parameters=wanted,
            recall=None if structure is None else recalling.measure(structure, order),
            folder=folder.name,
            arrays=tuple(write_array(folder, p) for p in _pieces(structure, order)),
            created=_now(),
        )
        put(root, index)
    return Built(index=index, added=len(vectors))


def add_to_index(name: str, root: Path | None = None, report: Report | None = None) -> Built:
    """Append the rows to an index that its caches have gained.

    Args:
        name: Name of the index.
        root: Folder of all caches; None for the usual one.
        report: Told what is done, how much of it, of how much.

    Raises:
        UnknownNameError: If there is no such index.
        CacheError: If a cache is gone, or has lost rows: then it must be built again.
        CorruptCacheError: If the index is damaged.
    """
    root = cache_root(root)
    read_description(root, name)  # raises before a folder is made
    with replacing(root, name) as folder:
        old = read_description(root, name)  # another process may have added meanwhile
        state = freshness(root, old)
        if state.state not in ("fresh", "grown"):
            raise CacheError(state.why)
        vectors = vectors_of(root, old)
        states = tuple(covered(source) for source in vectors.sources)
        order, structure = _read(root, old)
        sources, rows = _rows(vectors)
        is_new = _not_in(order, vectors, sources, rows)
        if not is_new.any():
            return Built(index=old, added=0)
        new = np.flatnonzero(np.repeat(is_new, [vectors.sources[s].parts for s in sources]))
        if structure is not None:
            fill(structure, vectors, new, None, report)
        order = Order(
            np.concatenate([order.sources, sources[is_new]]),
            np.concatenate([order.rows, rows[is_new]]),
            [s.parts for s in states],
            len(vectors),
        )
        index = Description(
            name=name,
            kind=old.kind,
            of=old.of,
            dim=old.dim,
            vectors=len(vectors),
            covered=states,
            parameters=old.parameters,
            recall=old.recall,
            folder=folder.name,
            arrays=tuple(write_array(folder, p) for p in _pieces(structure, order)),
            created=_now(),
        )
        put(root, index)
    return Built(index=index, added=len(new))


def rebuild_index(name: str, root: Path | None = None, report: Report | None = None) -> Built:
    """Build an index again over all rows that its caches have now, with the same parameters.

    Errors as `build_index` and `add_to_index`.
    """
    root = cache_root(root)
    old = read_description(root, name)
    vectors = vectors_of(root, old)
    return build_index(
        [source.features for source in vectors.sources],
        old.of,
        kind=old.kind,
        name=name,
        recipe=component_recipe(old.covered[0].component) or None,
        parameters=old.parameters,
        root=root,
        report=report,
    )


def vectors_of(root: Path, index: Description) -> Vectors:
    """Return the vectors that the caches of an index have now.

    Raises:
        CacheError: If a cache is gone, or has other vectors.
    """
    places = {(c.dataset, c.digest): c.path for c in all_caches(root) if not c.problem}
    if any((each.dataset, each.key) not in places for each in index.covered):
        raise CacheError(freshness(root, index).why)
    features = [Cache.open(places[c.dataset, c.key]).feature_set() for c in index.covered]
    recipe = component_recipe(index.covered[0].component) or None
    vectors = Vectors(features, index.of, recipe=recipe)
    for source, each in zip(vectors.sources, index.covered, strict=True):
        if (source.component, source.parts) != (each.component, each.parts):
            raise CacheError(
                f"The cache of {each.dataset} has more {index.of} in {source.component} now than "
                f"in {each.component}, which the index {index.name} covers. Build another index."
            )
    return vectors


def _read(root: Path, index: Description) -> tuple[Order, Structure | None]:
    try:
        return read_order(root, index), read_structure(root, index, grows=True)
    except FileNotFoundError as error:  # nobody else writes: the lock is ours
        raise CorruptCacheError(f"{error.filename} is missing. {CURE}") from error


def _before(root: Path, name: str, vectors: Vectors) -> Description | None:
    """Return the index of a name if it is up to date.

    Raises:
        UsageError: If it is over other vectors.
    """
    if name not in index_names(root):
        return None
    try:
        old = read_description(root, name)
    except CacheError:
        return None  # damaged: it is replaced
    now = {(s.features.listing.dataset, s.features.key.digest()) for s in vectors.sources}
    if old.of != vectors.kind or {(c.dataset, c.key) for c in old.covered} != now:
        have = ", ".join(f"{c.dataset} ({c.backbone})" for c in old.covered)
        raise UsageError(
            f"An index {name} over {old.of} of {have} exists already. Choose another name with ",
            Argument("name"),
            ".",
        )
    components = {(s.features.listing.dataset, s.component) for s in vectors.sources}
    same = components == {(c.dataset, c.component) for c in old.covered}
    is_current = same and len(vectors) == old.vectors and freshness(root, old).state == "fresh"
    try:
        return verify_index(root, name) if is_current else None
    except CacheError:
        return None


def _refuse_twice(vectors: Vectors) -> None:
    """Raise if a cache is there twice.

    Raises:
        UsageError: If one is.
    """
    paths = [source.features.path for source in vectors.sources]
    if len(set(paths)) < len(paths):
        raise UsageError("An index covers each cache once; name each of them once.")


def _default_name(vectors: Vectors) -> str:
    names = "+".join(source.features.listing.dataset for source in vectors.sources)
    words = (names, vectors.sources[0].features.backbone, vectors.kind)
    plain = "-".join(slug(word) for word in words)
    return slug(plain.encode("ascii", "ignore").decode())[:80].rstrip(".-") or "index"


def _rows(vectors: Vectors) -> tuple[Int32[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    rows = [source.rows.astype("<i8") for source in vectors.sources]
    numbers = np.arange(len(rows), dtype="<i4")
    return np.repeat(numbers, [len(r) for r in rows]), np.concatenate(rows)


def _not_in(
    order: Order,
    vectors: Vectors,
    sources: Int32[np.ndarray, " r"],
    rows: Int64[np.ndarray, " r"],
) -> np.ndarray:
    """Tell which rows an index lacks.

    Raises:
        CacheError: If the index has a row that the caches lack.
    """
    is_new = np.ones(len(rows), dtype=bool)
    for number, source in enumerate(vectors.sources):
        old = order.rows_of(number)
        if len(np.setdiff1d(old, source.rows)):
            raise CacheError(
                f"{source.features.path} has lost rows that the index covers. Build it again."
            )
        where = sources == number
        is_new[where] = ~np.isin(rows[where], old)
    return is_new


def _pieces(structure: Structure | None, order: Order) -> Iterator[Pieces]:
    for name, values, dtype in (("sources", order.sources, "<i4"), ("rows", order.rows, "<i8")):
        layout = Layout(dtype=dtype, shape=(len(values),))
        yield Pieces(name=name, layout=layout, parts=iter([values]))
    if structure is not None:
        yield from structure.arrays()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
