"""Open the index that fits some vectors, or search them exactly where there is none."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from featcache.errors import CacheError, CorruptCacheError, FeatcacheError, UnknownNameError
from featcache.faiss_library import INSTALL, has_faiss
from featcache.retrieval.indexes.approximate import Approximate
from featcache.retrieval.indexes.arrays import CURE
from featcache.retrieval.indexes.description import Description
from featcache.retrieval.indexes.folder import descriptions, read_description
from featcache.retrieval.indexes.opening import read_order, read_structure
from featcache.retrieval.indexes.state import changed, freshness
from featcache.retrieval.kinds.flat import Flat
from featcache.retrieval.vectors import Vectors
from featcache.wording import Part

TRIES = 3
"""How often an index is read anew that another process replaces meanwhile."""


class PartSearchedError(CacheError):
    """An index covers all rows of its caches, and only some of them are searched."""


@dataclass(frozen=True, kw_only=True)
class OpenIndex:
    """Vectors that are ready to be searched."""

    vectors: Vectors
    how: Flat | Approximate
    index: Description | None
    """The index that is used; None where no index fits and the search is exact."""
    notes: tuple[Part, ...] = ()
    """Which index is used, and why others are not."""

    @property
    def is_exact(self) -> bool:
        """Tell whether every neighbour is found."""
        return isinstance(self.how, Flat)

    def search(
        self, queries: Float[Tensor, "q d"], k: int
    ) -> tuple[Float32[Tensor, "q k"], Int64[Tensor, "q k"]]:
        """Find the k vectors nearest to every query.

        Args:
            queries: Unit rows.
            k: Vectors to find, at most as many as there are.

        Returns:
            Cosines and positions among the vectors, largest cosine first. Cosines are those of the
            vectors in the caches, also where an approximate index found them.

        Raises:
            UsageError: If k is out of range, or the queries have another width.
        """
        return self.how.search(queries, k)


def open_index(vectors: Vectors, root: Path | None = None, *, name: str | None = None) -> OpenIndex:
    """Open the newest index that covers exactly these vectors; else search them exactly.

    Args:
        vectors: What is searched.
        root: Folder of all caches; None for that of the vectors.
        name: Name of the index to use; None for any that fits.

    Raises:
        CacheError: If the named index does not fit the vectors, or the caches have changed since.
        CorruptCacheError: If it is damaged.
        UnknownNameError: If there is no index of that name.
        UsageError: If it needs faiss, which is not installed.

    Example:
        >>> import featcache
        >>> vectors = Vectors([featcache.extract("fieldguide", "tiny", limit=8)])
        >>> cosines, positions = open_index(vectors).search(vectors.take(np.array([2])), k=3)
        >>> positions[0, 0].item()
        2
    """
    root = vectors.sources[0].features.path.parent.parent if root is None else root
    if name is not None:
        return _opened(root, read_description(root, name), vectors)
    notes: list[Part] = []
    fitting = []
    for _, found in descriptions(root):
        if isinstance(found, FeatcacheError):
            notes.append(found.parts)
        elif _sources(found, vectors) is not None:
            fitting.append(found)
    for index in sorted(fitting, key=lambda i: i.created, reverse=True):
        if index.kind != "flat" and not has_faiss():
            notes.append(
                f"faiss is not installed, so the index {index.name} is not used. {INSTALL}."
            )
            continue
        try:
            opened = _opened(root, index, vectors)
        except FeatcacheError as error:
            if index.kind != "flat" or not isinstance(error, PartSearchedError):
                notes.append(error.parts)  # a flat index of more rows would be no faster
            continue
        return OpenIndex(
            vectors=vectors, how=opened.how, index=index, notes=(*notes, *opened.notes)
        )
    if notes:
        notes.append("The vectors are searched exactly instead.")
    return OpenIndex(vectors=vectors, how=Flat(vectors), index=None, notes=tuple(notes))


def _opened(root: Path, index: Description, vectors: Vectors) -> OpenIndex:
    for _ in range(TRIES):
        try:
            return _opened_once(root, index, vectors)
        except FileNotFoundError:
            again = read_description(root, index.name)
            if again.folder == index.folder:
                break
            index = again
    raise CorruptCacheError(f"Arrays of the index {index.name} are missing. {CURE}")


def _opened_once(root: Path, index: Description, vectors: Vectors) -> OpenIndex:
    sources = _sources(index, vectors)
    if sources is None:
        have = ", ".join(f"{c.component} of {c.dataset} ({c.backbone})" for c in index.covered)
        raise UnknownNameError(
            "index of these vectors",
            index.name,
            [
                name
                for name, found in descriptions(root)
                if isinstance(found, Description) and _sources(found, vectors) is not None
            ],
            f"It covers {have}.",
        )
    state = freshness(root, index)
    if state.state != "fresh":
        raise CacheError(state.why)
    order = read_order(root, index)
    for number, (each, source) in enumerate(zip(index.covered, sources, strict=True)):
        covers, searched = order.rows_of(number), vectors.sources[source]
        if np.array_equal(covers, searched.rows):
            continue
        if np.array_equal(covers, searched.all_rows()):
            raise PartSearchedError(
                f"The index {index.name} covers all rows of {each.dataset}, and a part of them is "
                "searched, so it is not used."
            )
        raise CacheError(changed(index, each))
    structure = read_structure(root, index, grows=False)
    how: Flat | Approximate = Flat(vectors)
    if structure is not None:
        how = Approximate(vectors, structure, order, sources)
    recall = f", recall at {index.recall.k} {index.recall.value:.3f}" if index.recall else ""
    note = f"Searching by the index {index.name} ({index.kind}, {index.vectors} vectors{recall})."
    return OpenIndex(vectors=vectors, how=how, index=index, notes=(note,))


def _sources(index: Description, vectors: Vectors) -> list[int] | None:
    """Return the position of each cache of an index among those of vectors; None if they differ."""
    have = {
        (s.features.listing.dataset, s.features.key.digest(), s.component, s.parts): number
        for number, s in enumerate(vectors.sources)
    }
    wanted = [(c.dataset, c.key, c.component, c.parts) for c in index.covered]
    if index.dim != vectors.dim or len(vectors.sources) != len(wanted) or set(wanted) != set(have):
        return None
    return [have[each] for each in wanted]
