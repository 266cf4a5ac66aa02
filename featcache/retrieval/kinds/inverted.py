"""Inverted files: vectors are kept in the list of their nearest centroid; few lists are searched.

codes[start of list i : start of list i + 1] belong to the vectors ids[same range]
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from featcache.faiss_library import load_faiss, on_cpu, on_gpu, search_lists
from featcache.retrieval.kinds.lists import fill_lists
from featcache.retrieval.kinds.structure import (
    Choice,
    Layout,
    Pieces,
    Structure,
    refuse_outside,
)

PER_LIST = 64
"""Vectors of the training sample for each list."""
FEWEST = 39
"""Fewest vectors a list is worth having for, as faiss recommends."""
WITHOUT = "choose the kind flat, which searches exactly without it"


class Inverted(Structure):
    """What kinds with inverted lists share; a kind says how a vector is coded."""

    def __init__(self, dim: int, parameters: Mapping[str, int]) -> None:
        """Begin without a vector; errors as `load_faiss`."""
        super().__init__(dim, parameters)
        self._faiss = load_faiss(WITHOUT)
        self._index: Any = None
        self._viewed: Shaped[np.ndarray, "n b"] | None = None  # codes that faiss reads in place

    @abstractmethod
    def _empty(self, quantizer: Any) -> Any:
        """Make an untrained index of faiss around a coarse quantizer."""

    @property
    @abstractmethod
    def code_size(self) -> int:
        """Bytes of a coded vector."""

    @abstractmethod
    def _further_layout(self) -> dict[str, Layout]:
        """Return the arrays beside lists and centroids."""

    @abstractmethod
    def _further(self, index: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Return the arrays of `_further_layout` of a trained index."""

    @abstractmethod
    def _take_further(self, index: Any, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Put the arrays of `_further_layout` into an untrained index, checked."""

    def sample_size(self, count: int) -> int:
        """Return 64 vectors for each list, or all."""
        return min(count, PER_LIST * self.parameters["lists"])

    def train(self, sample: Float32[np.ndarray, "s d"]) -> None:
        """Find the centroids by k-means."""
        index = self._empty(self._faiss.IndexFlatIP(self.dim))
        index.cp.min_points_per_centroid = 1  # fewer are fine; faiss would print a warning
        self._index = on_gpu(index)
        self._index.train(np.ascontiguousarray(sample))

    def add(self, block: Float32[np.ndarray, "b d"]) -> None:
        """Append unit vectors to the lists of their nearest centroids."""
        assert self._viewed is None, "the index was restored to be searched alone"
        self._index.add(np.ascontiguousarray(block))

    def layout(self, count: int) -> dict[str, Layout]:
        """Return centroids, lists and what the codes need."""
        lists = self.parameters["lists"]
        return {
            "centroids": Layout(dtype="<f4", shape=(lists, self.dim)),
            "sizes": Layout(dtype="<i8", shape=(lists,)),
            "ids": Layout(dtype="<i8", shape=(count,)),
            "codes": Layout(dtype="|u1", shape=(count, self.code_size)),
            **self._further_layout(),
        }

    def arrays(self) -> Iterator[Pieces]:
        """Yield all arrays; lists one by one, so that they are not copied as a whole."""
        index = on_cpu(self._index)
        lists, layout = index.invlists, self.layout(int(index.ntotal))
        numbers = range(self.parameters["lists"])
        sizes = np.array([lists.list_size(i) for i in numbers], dtype="<i8")
        quantizer = self._faiss.downcast_index(index.quantizer)
        whole = {
            "centroids": quantizer.reconstruct_n(0, len(sizes)),
            "sizes": sizes,
            **self._further(index),
        }
        for name, values in whole.items():
            yield Pieces(name=name, layout=layout[name], parts=iter([values]))
        pointer, filled = self._faiss.rev_swig_ptr, [i for i in numbers if sizes[i]]
        ids = (pointer(lists.get_ids(i), int(sizes[i])).copy() for i in filled)
        yield Pieces(name="ids", layout=layout["ids"], parts=ids)
        codes = (pointer(lists.get_codes(i), int(sizes[i]) * self.code_size).copy() for i in filled)
        yield Pieces(name="codes", layout=layout["codes"], parts=codes)

    def restore(
        self, arrays: Mapping[str, Shaped[np.ndarray, "..."]], count: int, *, grows: bool = True
    ) -> None:
        """Rebuild the lists by the interface of faiss; errors as `Structure.restore`."""
        sizes, ids = np.array(arrays["sizes"]), np.array(arrays["ids"])
        if not ((sizes >= 0) & (sizes <= count)).all() or int(sizes.sum()) != count:
            raise ValueError(f"has lists that do not hold {count} vectors together")
        if not _is_permutation(ids):
            raise ValueError("has lists that lack a vector or have one twice")
        centroids = np.array(arrays["centroids"])
        refuse_outside(centroids, "centroids")
        self._refuse_codes(arrays["codes"])
        quantizer = self._faiss.IndexFlatIP(self.dim)
        quantizer.add(centroids)
        index = self._empty(quantizer)
        self._take_further(index, arrays)
        index.is_trained = True
        codes = np.ascontiguousarray(arrays["codes"])
        if fill_lists(self._faiss, index, sizes, ids, codes, as_views=not grows):
            self._viewed = codes
        index.ntotal = count
        self._index = on_gpu(index)

    def candidates(self, queries: Float32[np.ndarray, "q d"], k: int) -> Int64[np.ndarray, "q c"]:
        """Search the lists of the nearest centroids."""
        count = min(self.candidate_count(k), int(self._index.ntotal))
        return search_lists(self._index, queries, count, self.parameters["probes"])

    def _refuse_codes(self, codes: Shaped[np.ndarray, "n b"]) -> None:
        """Raise ValueError if a code is out of range; every byte of a product code is one."""


def list_choices(count: int, probed: int) -> dict[str, Choice]:
    """Return how many lists there are, about sqrt(count), and how many of them are searched.

    Args:
        count: Vectors.
        probed: Of so many lists one is searched, and eight at least.
    """
    lists = 1 << max(0, round(float(np.log2(np.sqrt(count)))))
    lists = max(1, min(lists, count // FEWEST))
    return {
        "lists": Choice(value=lists, most=count),
        "probes": Choice(value=min(lists, max(8, lists // probed)), most=count),
    }


def _is_permutation(ids: Int64[np.ndarray, " n"]) -> bool:
    if not len(ids) or int(ids.min()) < 0 or int(ids.max()) >= len(ids):
        return False
    seen = np.zeros(len(ids), dtype=bool)
    seen[ids] = True
    return bool(seen.all())
