"""hnsw: a graph of float16 vectors with few links each, walked from a fixed entry point.

    neighbours[offset(i) + first(l) : offset(i) + first(l + 1)]    links of vector i on level l

-1 stands for no link. Upper levels hold ever fewer vectors. Every link of a level must lead to a
vector that is on that level too, or a walk would leave the array; faiss does not check this.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from featcache.faiss_library import load_faiss
from featcache.retrieval.kinds.inverted import WITHOUT
from featcache.retrieval.kinds.structure import Choice, Layout, Pieces, Structure, refuse_codes


class Hnsw(Structure):
    """A graph of float16 vectors; faiss's IndexHNSWSQ."""

    name: ClassVar[str] = "hnsw"
    finds_more: ClassVar[tuple[str, ...]] = ("effort",)

    def __init__(self, dim: int, parameters: Mapping[str, int]) -> None:
        """Begin without a vector; errors as `load_faiss`."""
        super().__init__(dim, parameters)
        self._faiss = load_faiss(WITHOUT)
        kind, metric = self._faiss.ScalarQuantizer.QT_fp16, self._faiss.METRIC_INNER_PRODUCT
        self._index = self._faiss.IndexHNSWSQ(dim, kind, parameters["links"], metric)
        self._index.is_trained = True  # float16 learns nothing
        self._index.storage.is_trained = True
        self._index.hnsw.efConstruction = parameters["build_effort"]

    @classmethod
    def choices(cls, count: int, dim: int) -> dict[str, Choice]:
        """Return links a vector, and how many vectors a walk keeps when building and searching."""
        return {
            "links": Choice(value=32, most=256),
            "build_effort": Choice(value=80, most=10_000),
            "effort": Choice(value=64, most=100_000),
        }

    def sample_size(self, count: int) -> int:
        """Return none: nothing is learned."""
        return 0

    def train(self, sample: Float32[np.ndarray, "s d"]) -> None:
        """Learn nothing."""

    def add(self, block: Float32[np.ndarray, "b d"]) -> None:
        """Link unit vectors into the graph."""
        self._index.add(np.ascontiguousarray(block))

    def layout(self, count: int) -> dict[str, Layout]:
        """Return the codes and the graph."""
        return {
            "codes": Layout(dtype="|u1", shape=(count, 2 * self.dim)),
            "levels": Layout(dtype="<i4", shape=(count,)),
            "neighbours": Layout(dtype="<i4", shape=(-1,)),
            "entry": Layout(dtype="<i8", shape=(1,)),
        }

    def arrays(self) -> Iterator[Pieces]:
        """Yield the codes and the graph; offsets follow from the levels."""
        graph, layout = self._index.hnsw, self.layout(int(self._index.ntotal))
        read = self._faiss.vector_to_array
        storage = self._faiss.downcast_index(self._index.storage)
        links = Layout(dtype="<i4", shape=(graph.neighbors.size(),))
        yield Pieces(name="codes", layout=layout["codes"], parts=iter([read(storage.codes)]))
        yield Pieces(name="levels", layout=layout["levels"], parts=iter([read(graph.levels)]))
        yield Pieces(name="neighbours", layout=links, parts=iter([read(graph.neighbors)]))
        entry = np.array([graph.entry_point], dtype="<i8")
        yield Pieces(name="entry", layout=layout["entry"], parts=iter([entry]))

    def restore(
        self, arrays: Mapping[str, Shaped[np.ndarray, "..."]], count: int, *, grows: bool = True
    ) -> None:
        """Put a checked graph into faiss; errors as `Structure.restore`."""
        graph = self._index.hnsw
        first = self._faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
        levels, neighbours = np.array(arrays["levels"]), np.array(arrays["neighbours"])
        entry = int(arrays["entry"][0])
        if int(levels.min()) < 1 or int(levels.max()) >= len(first):
            raise ValueError(f"has a vector on no level, or on more than {len(first) - 1}")
        if not 0 <= entry < count or int(levels[entry]) != int(levels.max()):
            raise ValueError("has an entry point that is not on its highest level")
        offsets = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(first[levels], out=offsets[1:])
        if int(offsets[-1]) != len(neighbours):
            raise ValueError(f"has {len(neighbours)} links where its levels need {offsets[-1]}")
        _refuse_links(neighbours, levels, offsets, first)
        refuse_codes(arrays["codes"])
        copy = self._faiss.copy_array_to_vector
        storage = self._faiss.downcast_index(self._index.storage)
        copy(np.ascontiguousarray(arrays["codes"]).reshape(-1), storage.codes)
        copy(levels, graph.levels)
        copy(offsets.astype(np.uint64), graph.offsets)
        copy(neighbours, graph.neighbors)
        graph.entry_point, graph.max_level = entry, int(levels.max()) - 1
        storage.ntotal = self._index.ntotal = count

    def candidates(self, queries: Float32[np.ndarray, "q d"], k: int) -> Int64[np.ndarray, "q c"]:
        """Walk the graph."""
        self._index.hnsw.efSearch = max(self.parameters["effort"], k)
        _, ids = self._index.search(np.ascontiguousarray(queries), k)
        found: Int64[np.ndarray, "q c"] = ids
        return found


def _refuse_links(
    neighbours: Shaped[np.ndarray, " m"],
    levels: Shaped[np.ndarray, " n"],
    offsets: Int64[np.ndarray, " n1"],
    first: Int64[np.ndarray, " l"],
) -> None:
    """Raise if a link leads to no vector, or to one that is not on its level.

    Raises:
        ValueError: If one does.
    """
    if int(neighbours.min()) < -1 or int(neighbours.max()) >= len(levels):
        raise ValueError("has a link to a vector that it does not have")
    for level in range(1, int(levels.max())):
        on_level = np.flatnonzero(levels > level)
        width = int(first[level + 1] - first[level])
        at = offsets[on_level, None] + first[level] + np.arange(width)
        linked = neighbours[at]
        if (levels[linked[linked >= 0]] <= level).any():
            raise ValueError("has a link to a vector that is not on the level of the link")
