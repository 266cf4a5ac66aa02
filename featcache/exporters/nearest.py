"""The rows nearest to each row of a table, exactly: what a viewer shows beside an image.

Every block of rows is compared with all rows, which are read anew for it: time grows with the
square of their number, memory with what is found.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32, Int64

from featcache.exporters.reading import CHUNK, chunks
from featcache.neighbours import TopK
from featcache.types import FeatureSet


def nearest_rows(
    features: FeatureSet,
    rows: Int64[np.ndarray, " r"],
    count: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Int64[np.ndarray, "r j"], Float32[np.ndarray, "r j"]]:
    """Find the rows with the largest cosine for each row; the row itself comes first.

    So it is in the tables that Embedding Atlas makes, and its graph measures skip the first.

    Args:
        features: The cache.
        rows: Rows of the listing, in the order of the table.
        count: Other rows to find for each; fewer where there are not as many.
        progress: Called as (rows with neighbours, all rows).

    Returns:
        Positions in the table and 1 - cosine, in [0, 2]; nearest first.

    Example:
        >>> import featcache
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> at, distances = nearest_rows(cache, cache.usable("val"), 3)
        >>> at.shape[1], at[7, 0].item(), distances[7, 0].item()
        (4, 7, 0.0)
    """
    k = min(count, len(rows) - 1)
    found, distances = [], []
    for start, queries in zip(range(0, len(rows), CHUNK), chunks(features, rows), strict=True):
        running = TopK(queries, k + 1)  # one more, as a row is among its own nearest
        for keys in chunks(features, rows):
            running.add(keys)
        own = start + torch.arange(len(queries))[:, None]
        best, chosen = running.best.masked_fill(running.at == own, -torch.inf).topk(k)
        found.append(torch.cat([own, running.at.gather(1, chosen)], dim=1))
        distances.append(torch.cat([torch.zeros(len(own), 1), (1 - best).clamp_(min=0)], dim=1))
        if progress is not None:
            progress(start + len(queries), len(rows))
    return torch.cat(found).numpy(), torch.cat(distances).numpy()
