"""ivfpq: inverted lists of product codes, a few bytes a vector.

A vector's difference from its centroid is cut into pieces, and each piece is replaced by the
nearest of 256 codewords. The products with codes are rough: `refine` times k candidates are
compared again with the vectors themselves.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Shaped

from featcache.errors import UsageError
from featcache.retrieval.kinds.inverted import Inverted, list_choices
from featcache.retrieval.kinds.structure import Choice, Layout, refuse_outside
from featcache.wording import Argument

WORDS = 256
"""Codewords of a piece: one byte."""
SEEN, ROUNDS = 64, 10
"""Vectors for each codeword that are learned from, and rounds of k-means."""
LONGEST = 64
"""Bytes of a code by default, at most."""


class IvfPq(Inverted):
    """Inverted lists of product codes; faiss's IndexIVFPQ by residual."""

    name: ClassVar[str] = "ivfpq"
    finds_more: ClassVar[tuple[str, ...]] = ("refine", "probes")

    @classmethod
    def choices(cls, count: int, dim: int) -> dict[str, Choice]:
        """Return lists, probes, bytes of a code and how many candidates are compared again.

        Raises:
            UsageError: If there are too few vectors to learn codewords from.
        """
        if count < WORDS:
            raise UsageError(
                Argument("kind", "ivfpq"),
                f" learns {WORDS} codewords and needs as many vectors, got {count}. Use ",
                Argument("kind", "flat"),
                ".",
            )
        most = max(1, min(LONGEST, dim // 4))
        length = max(b for b in range(1, most + 1) if dim % b == 0)
        return {
            **list_choices(count, probed=64),
            "bytes": Choice(value=length, most=dim, divides=dim),
            "refine": Choice(value=4, most=1000),
        }

    @property
    def code_size(self) -> int:
        """Bytes of a coded vector."""
        return self.parameters["bytes"]

    def sample_size(self, count: int) -> int:
        """Return the sample of the lists, and enough for the codewords."""
        return min(count, max(super().sample_size(count), WORDS * SEEN))

    def _empty(self, quantizer: Any) -> Any:
        faiss, bytes_ = self._faiss, self.parameters["bytes"]
        lists, metric = self.parameters["lists"], self._faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFPQ(quantizer, self.dim, lists, bytes_, 8, metric)
        index.pq.cp.min_points_per_centroid = 1  # as in `Inverted.train`
        index.pq.cp.max_points_per_centroid = SEEN
        index.pq.cp.niter = ROUNDS
        return index

    def _further_layout(self) -> dict[str, Layout]:
        pieces = self.parameters["bytes"]
        return {"codewords": Layout(dtype="<f4", shape=(pieces, WORDS, self.dim // pieces))}

    def _further(self, index: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
        words = self._faiss.vector_to_array(index.pq.centroids)
        return {"codewords": words.reshape(self._further_layout()["codewords"].shape)}

    def _take_further(self, index: Any, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        words = np.array(arrays["codewords"])
        refuse_outside(words, "codewords")
        self._faiss.copy_array_to_vector(words.reshape(-1), index.pq.centroids)
