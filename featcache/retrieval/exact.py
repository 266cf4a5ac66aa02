"""Exact search over vectors without an index: every vector is read once, block by block."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from featcache.errors import UsageError
from featcache.neighbours import BLOCK, TopK
from featcache.retrieval import vectors as limits
from featcache.retrieval.vectors import Vectors


def search_exactly(
    vectors: Vectors,
    queries: Float[Tensor, "q d"],
    k: int,
    *,
    allowed: Callable[[Int64[Tensor, " b"]], Bool[Tensor, "q b"]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Float32[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """Find the k vectors with the largest cosine for every query.

    Args:
        vectors: What is searched.
        queries: Unit rows.
        k: Vectors to find, at most as many as there are.
        allowed: Tells for the positions of a block which of them each query may find; None for all.
            What is not allowed has the cosine -inf and comes last.
        progress: Told after each block how many vectors were read, and of how many.

    Returns:
        Cosines and positions among the vectors, largest cosine first.

    Raises:
        UsageError: If k is out of range, or the queries have another width.

    Example:
        >>> import featcache
        >>> vectors = Vectors([featcache.extract("fieldguide", "tiny", limit=8)])
        >>> cosines, positions = search_exactly(vectors, next(vectors.blocks())[:1], k=3)
        >>> positions[0, 0].item()
        0
    """
    if not 1 <= k <= len(vectors):
        raise UsageError(f"k must be between 1 and the {len(vectors)} vectors, got {k}.")
    if queries.shape[1] != vectors.dim:
        raise UsageError(f"Queries have width {queries.shape[1]}, the vectors {vectors.dim}.")
    running = TopK(queries.float(), k)
    most = min(BLOCK // max(1, len(queries)), limits.BLOCK_BYTES // (4 * vectors.dim))
    for block in vectors.blocks(max(1, most)):  # neither the block nor the products are large
        positions = torch.arange(running.count, running.count + len(block))
        running.add(block.to(queries.device), None if allowed is None else allowed(positions))
        if progress is not None:
            progress(running.count, len(vectors))
    return running.best, running.at
