"""Exact nearest neighbours by inner product, in torch or with faiss, of keys at once or in blocks.

No index is built, and faiss is imported only when it is requested.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from featcache.errors import UsageError
from featcache.faiss_library import load_faiss

Index = Literal["exact", "faiss"]

BLOCK = 16 * 2**20
"""Products computed at once: 64 MiB of float32."""
GROUP = 8
"""Products per group whose maximum is compared first."""


def nearest(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    k: int,
    *,
    index: Index = "exact",
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Find the k keys with the largest inner product for every query.

    Args:
        queries: Query rows; for unit rows the product is a cosine.
        keys: Rows to search.
        k: Neighbours per query, at most the number of keys.
        index: exact uses torch on the device of the rows; faiss is its flat search on the CPU.

    Returns:
        Products and positions among the keys, largest product first.

    Raises:
        UsageError: If k is out of range, or faiss is not installed.
    """
    if not 1 <= k <= len(keys):
        raise UsageError(f"k must be between 1 and the {len(keys)} rows to find, got {k}.")
    if torch.compiler.is_compiling():  # a traced program has any number of queries: one block
        products, at = torch.topk(queries @ keys.mT, k, dim=-1)
        return products, at
    if index == "faiss":
        return _with_faiss(queries, keys, k)
    running = TopK(queries, k)
    size = max(k, BLOCK // max(1, queries.shape[0]))
    for start in range(0, len(keys), size):
        running.add(keys[start : start + size])
    return running.best, running.at


class TopK:
    """The k largest inner products of each query so far, while keys come in blocks.

    Example:
        >>> running = TopK(torch.eye(2), k=1)
        >>> running.add(torch.tensor([[1.0, 0.0]]))
        >>> running.add(torch.tensor([[0.0, 2.0]]))
        >>> running.best.tolist(), running.at.tolist()
        ([[1.0], [2.0]], [[0], [1]])
    """

    def __init__(self, queries: Float[Tensor, "n d"], k: int) -> None:
        """Begin without a key.

        Args:
            queries: Query rows.
            k: Keys to keep for every query; fewer as long as fewer came.
        """
        self.queries, self.k = queries, k
        self.count = 0
        """Keys seen."""
        self.best = queries.new_empty(len(queries), 0)
        """Products [n, min(k, count)], largest first."""
        self.at = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        """Positions of the keys [n, min(k, count)], counted over all blocks."""

    def add(self, keys: Float[Tensor, "m d"], allowed: Bool[Tensor, "n m"] | None = None) -> None:
        """Take one more block.

        Args:
            keys: Keys.
            allowed: Which keys each query may find; None for all. A key that is not allowed has
                the product -inf and comes last.
        """
        if not len(keys):
            return
        products = self.queries @ keys.mT
        if allowed is not None:
            products = products.masked_fill(~allowed, -torch.inf)
        more, where = _largest(products, min(self.k, len(keys)))
        best = torch.cat([self.best, more], dim=-1)
        at = torch.cat([self.at, where + self.count], dim=-1)
        self.count += len(keys)
        self.best, chosen = torch.topk(best, min(self.k, best.shape[1]), dim=-1)
        self.at = torch.gather(at, -1, chosen)


def _largest(
    products: Float[Tensor, "n m"], k: int
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Return the k largest values of each row and their positions.

    Only values in the k groups with the largest maxima can be among them, so that top-k runs on few
    values.
    """
    n, m = products.shape
    groups = m // GROUP
    if groups < 4 * k:
        return torch.topk(products, k, dim=-1)
    whole = groups * GROUP
    maxima = products[:, :whole].reshape(n, GROUP, groups).amax(1)  # group g: g, g + groups, ...
    _, chosen = torch.topk(maxima, k, dim=-1, sorted=False)
    steps = torch.arange(0, whole, groups, device=products.device)
    rest = torch.arange(whole, m, device=products.device).expand(n, -1)
    places = torch.cat([(chosen[:, :, None] + steps).flatten(1), rest], dim=1)
    best, at = torch.topk(torch.gather(products, 1, places), k, dim=-1)
    return best, torch.gather(places, 1, at)


def _with_faiss(
    queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], k: int
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    faiss = load_faiss("use index=exact, which gives the same neighbours")
    rows, known = (t.detach().cpu().float().contiguous().numpy() for t in (queries, keys))
    products, positions = faiss.knn(rows, known, k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(products).to(queries), torch.from_numpy(positions).to(queries.device)
