"""flat: exact search over the vectors themselves. Holds no copy on disk.

Vectors that fit are kept in memory after the first search; more are read block by block.
"""

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from featcache.errors import UsageError
from featcache.neighbours import nearest
from featcache.retrieval.exact import search_exactly
from featcache.retrieval.vectors import Vectors

HELD = 1 << 30
"""Bytes of float32 vectors that are kept in memory, at most."""


class Flat:
    """Exact search that gets faster after its first query."""

    name = "flat"

    def __init__(self, vectors: Vectors) -> None:
        """Choose the vectors; none is read yet."""
        self._vectors = vectors
        self._held: Float32[Tensor, "m d"] | None = None

    def search(
        self, queries: Float[Tensor, "q d"], k: int
    ) -> tuple[Float32[Tensor, "q k"], Int64[Tensor, "q k"]]:
        """Find the k vectors with the largest cosine; errors as `search_exactly`."""
        vectors = self._vectors
        if 4 * len(vectors) * vectors.dim > HELD:
            return search_exactly(vectors, queries, k)
        check_request(vectors, queries, k)
        if self._held is None:
            self._held = torch.cat(list(vectors.blocks()))
        return nearest(queries.detach().cpu().float(), self._held, k)


def check_request(vectors: Vectors, queries: Float[Tensor, "q d"], k: int) -> None:
    """Refuse a search that has no answer.

    Raises:
        UsageError: If k is out of range, or the queries have another width.
    """
    if not 1 <= k <= len(vectors):
        raise UsageError(f"k must be between 1 and the {len(vectors)} vectors, got {k}.")
    if queries.shape[1] != vectors.dim:
        raise UsageError(f"Queries have width {queries.shape[1]}, the vectors {vectors.dim}.")
