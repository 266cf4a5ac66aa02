"""Coordinates of rows in a plane, to look at them: never an input of a method.

pca     the two directions of largest variance of the unit rows, from their covariance [d d] by
torch.linalg.eigh; rows are streamed
tsne    scikit-learn's TSNE on the first 50 principal coordinates; all rows at once
none    no coordinates
"""

from importlib import import_module

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from featcache.errors import UsageError
from featcache.exporters.asked import check_name
from featcache.exporters.reading import chunks
from featcache.types import FeatureSet
from featcache.wording import Argument

KEPT = 50
"""Principal coordinates that t-SNE gets, as its authors advise."""
MOST_TSNE = 50_000
"""Rows that t-SNE takes at most; its time grows faster than their number."""


def check_projection(name: str, rows: int) -> None:
    """Refuse unknown projections, and t-SNE of too many rows or without scikit-learn.

    Raises:
        UnknownNameError: If there is no such projection.
        UsageError: If t-SNE cannot be had.
    """
    check_name(name)
    if name != "tsne":
        return
    if rows > MOST_TSNE:
        raise UsageError(
            f"t-SNE takes at most {MOST_TSNE} rows here, and these are {rows}. Use ",
            Argument("projection", "pca"),
            ", or fewer ",
            Argument("splits"),
            ".",
        )
    try:
        import_module("sklearn.manifold")
    except ImportError as missing:
        raise UsageError(
            "t-SNE is scikit-learn's, which is not installed. Install it with: "
            "pip install scikit-learn; or use ",
            Argument("projection", "pca"),
            ".",
        ) from missing


def project(
    features: FeatureSet, rows: Int64[np.ndarray, " r"], name: str
) -> Float32[np.ndarray, "r 2"] | None:
    """Return coordinates of rows by their global features; None for `none`.

    The same rows always get the same coordinates: of each direction the largest entry is positive,
    and t-SNE starts at the principal coordinates with a fixed seed.

    Args:
        features: The cache.
        rows: Rows of the listing, one at least.
        name: pca, tsne or none, checked.
    """
    if name == "none":
        return None
    centre, axes = principal_axes(features, rows, 2 if name == "pca" else KEPT)
    low = np.concatenate(
        [((chunk.double() - centre) @ axes).float().numpy() for chunk in chunks(features, rows)]
    )
    if name == "pca":
        return np.pad(low, ((0, 0), (0, 2 - low.shape[1])))
    made = import_module("sklearn.manifold").TSNE(
        init="pca" if min(low.shape) >= 2 else "random",
        perplexity=min(30.0, max(1.0, (len(low) - 1) / 3)),
        random_state=0,
    )
    return np.asarray(made.fit_transform(low), dtype=np.float32)


def principal_axes(
    features: FeatureSet, rows: Int64[np.ndarray, " r"], count: int
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d k"]]:
    """Return the mean of unit rows and the directions of largest variance, at most d, float64."""
    total, squares = torch.zeros(()), torch.zeros(())
    for chunk in chunks(features, rows):
        x = chunk.double()
        total, squares = total + x.sum(0), squares + x.mT @ x
    mean = total / len(rows)
    _, vectors = torch.linalg.eigh(squares / len(rows) - mean[:, None] * mean)
    axes = vectors.flip(-1)[:, :count]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return mean, axes * largest.sign()
