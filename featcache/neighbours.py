"""Exact nearest neighbours by inner product, in torch or with faiss.

No index is built. Only this file imports faiss, and only when it is requested.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import UsageError

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
    if index == "faiss":
        return _with_faiss(queries, keys, k)
    size = max(k, BLOCK // max(1, queries.shape[0]))
    best, at = _largest(queries @ keys[:size].mT, k)
    for start in range(size, len(keys), size):
        block = keys[start : start + size]
        more, where = _largest(queries @ block.mT, min(k, len(block)))
        best, chosen = torch.topk(torch.cat([best, more], dim=-1), k, dim=-1)
        at = torch.gather(torch.cat([at, where + start], dim=-1), -1, chosen)
    return best, at


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
    faiss = _faiss()
    rows, known = (t.detach().cpu().float().contiguous().numpy() for t in (queries, keys))
    products, positions = faiss.knn(rows, known, k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(products).to(queries), torch.from_numpy(positions).to(queries.device)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UsageError(
            "faiss is not installed here. Install it with pip install 'featcache[cpu]' "
            "([gpu] on NVIDIA), or use index=exact, which gives the same neighbours."
        ) from error
    return faiss
