"""Search by an approximate index; cosines are those of the vectors, whatever the index says."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from featcache.retrieval.exact import search_exactly
from featcache.retrieval.indexes.order import Order
from featcache.retrieval.kinds.flat import check_request
from featcache.retrieval.kinds.structure import Structure
from featcache.retrieval.vectors import BLOCK_BYTES, Vectors


class Approximate:
    """An approximate index over vectors."""

    def __init__(
        self, vectors: Vectors, structure: Structure, order: Order, sources: Sequence[int]
    ) -> None:
        """Join an index with the vectors that it covers.

        Args:
            vectors: The vectors.
            structure: The index in memory.
            order: What its ids are.
            sources: Position of each cache of the index among those of the vectors.
        """
        self._vectors, self._structure, self._order = vectors, structure, order
        self._sources = sources

    def search(
        self, queries: Float[Tensor, "q d"], k: int
    ) -> tuple[Float32[Tensor, "q k"], Int64[Tensor, "q k"]]:
        """Find k vectors with a large cosine for every query.

        Candidates of the index are compared with the vectors in the caches. A query for which the
        index finds fewer than k is searched exactly.

        Args:
            queries: Unit rows.
            k: Vectors to find, at most as many as there are.

        Returns:
            Cosines and positions among the vectors, largest cosine first.

        Raises:
            UsageError: If k is out of range, or the queries have another width.
            CorruptCacheError: If a shard is damaged.
        """
        check_request(self._vectors, queries, k)
        queries = queries.detach().cpu().float().contiguous()
        cosines = torch.full((len(queries), k), -torch.inf)
        positions = torch.zeros(len(queries), k, dtype=torch.int64)
        width = self._structure.candidate_count(k)
        step = max(1, BLOCK_BYTES // (4 * self._vectors.dim * width))
        for first in range(0, len(queries), step):
            part = slice(first, first + step)
            ids = self._structure.candidates(queries[part].numpy(), k)
            cosines[part], positions[part] = self._compare(queries[part], ids, k)
        lacking = torch.isneginf(cosines).any(1)
        if bool(lacking.any()):
            cosines[lacking], positions[lacking] = search_exactly(
                self._vectors, queries[lacking], k
            )
        return cosines, positions

    def _compare(
        self, queries: Float32[Tensor, "q d"], ids: Int64[np.ndarray, "q c"], k: int
    ) -> tuple[Float32[Tensor, "q k"], Int64[Tensor, "q k"]]:
        """Return the k candidates with the largest cosines; -inf where there are fewer."""
        distinct, back = np.unique(ids, return_inverse=True)
        where = torch.from_numpy(back.reshape(ids.shape))
        is_one = distinct >= 0
        positions = np.zeros_like(distinct)
        positions[is_one] = self._order.positions(distinct[is_one], self._vectors, self._sources)
        rows = self._vectors.take(positions)
        cosines = torch.einsum("qcd,qd->qc", rows[where], queries)
        cosines = cosines.masked_fill(~torch.from_numpy(is_one)[where], -torch.inf)
        best, at = torch.topk(cosines, k, dim=1)
        return best, torch.gather(torch.from_numpy(positions)[where], 1, at)
