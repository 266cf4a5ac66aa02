"""Measure how many of the true neighbours an index finds.

Queries are vectors of the index, drawn with a fixed seed, each left out of its own neighbours.
Texts lie elsewhere than images do: for them it can be lower.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from featcache.neighbours import TopK
from featcache.retrieval.indexes.approximate import Approximate
from featcache.retrieval.indexes.description import Recall
from featcache.retrieval.indexes.order import Order
from featcache.retrieval.kinds.structure import Structure
from featcache.retrieval.vectors import Vectors

K = 10
QUERIES = 50


class Recalling:
    """Finds the true neighbours while vectors stream by, so that they are read once."""

    def __init__(self, vectors: Vectors) -> None:
        """Draw the queries."""
        rng = np.random.default_rng(1)
        count = min(QUERIES, len(vectors))
        self._vectors = vectors
        self._at = np.sort(rng.choice(len(vectors), count, replace=False))
        self._k = min(K, len(vectors) - 1)
        self._running: TopK | None = None

    def watch(self, block: Float32[Tensor, "b d"]) -> None:
        """Take the next block, in the order of the vectors."""
        if self._running is None:
            self._running = TopK(self._vectors.take(self._at), self._k + 1)
        self._running.add(block)

    def measure(self, structure: Structure, order: Order) -> Recall | None:
        """Compare a filled index with the true neighbours; None for a single vector."""
        if self._running is None or not self._k:
            return None
        sources = range(len(self._vectors.sources))
        index = Approximate(self._vectors, structure, order, sources)
        _, found = index.search(self._running.queries, self._k + 1)
        true, own = self._running.at, torch.from_numpy(self._at)[:, None]
        hits = (found[:, :, None] == true[:, None, :]) & (true != own)[:, None, :]
        of = (true != own).sum()  # one more where a copy of the query took its place
        value = float(hits.sum() / of)
        return Recall(
            value=round(value, 4), k=self._k, queries=len(self._at), vectors=len(self._vectors)
        )
