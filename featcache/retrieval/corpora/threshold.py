"""The cosine above which two images count as near-duplicates, measured on the images of a cache.

    threshold = max(5% quantile of copies, 99% quantile of others)                            (1)

copies   cosines of the cached views of an image with the image itself: augmented copies
others   cosines of an image with the nearest query or validation image that is another file

Above (1), at most one of a hundred different images counts as a near-duplicate. Where the two do
not overlap, nineteen of twenty augmented copies do; the share that really does is stored. A cache
without views has the second quantile alone, which is never larger than (1) and finds as many
copies.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from featcache.retrieval.corpora.images import guarded_splits, image_keys
from featcache.retrieval.exact import search_exactly
from featcache.retrieval.vectors import Vectors
from featcache.types import FeatureSet

COPIES, OTHERS = 0.05, 0.99
"""The two quantiles."""
IMAGES = 2_000
"""Most images that are measured, evenly spaced over the cache."""
CLOSEST = 0.9995
"""Largest threshold; above it, rounding could hide an equal image."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold and what it was measured on."""

    cosine: float
    backbone: str
    images: int
    """Images that were compared with those of the query and validation splits."""
    others: float
    """99% quantile of the cosines of different images."""
    views: str = ""
    """Component of the augmented copies; empty if the cache has no views."""
    copies: float | None = None
    """5% quantile of the cosines of augmented copies."""
    found: float | None = None
    """Share of the augmented copies above the threshold."""


def calibrate(features: FeatureSet) -> Threshold:
    """Measure the threshold (1) on a cache with query or validation images.

    Raises:
        MissingComponentError: If images lack global features.
        CacheError: If a vector is zero or not finite.
    """
    rows = _spread(Vectors([features]).sources[0].rows)
    nearest = _nearest_others(features, rows)
    others = float(torch.quantile(nearest, OTHERS)) if len(nearest) else CLOSEST
    views = _views(features)
    if views is None:
        cosine = min(others, CLOSEST)
        return Threshold(cosine=cosine, backbone=features.backbone, images=len(rows), others=others)
    copies = _copies(features, views)
    low = float(torch.quantile(copies, COPIES))
    cosine = min(max(low, others), CLOSEST)
    return Threshold(
        cosine=cosine,
        backbone=features.backbone,
        images=len(rows),
        others=others,
        views=views,
        copies=low,
        found=float((copies > cosine).float().mean()),
    )


def _nearest_others(features: FeatureSet, rows: Int64[np.ndarray, " r"]) -> Float32[Tensor, " r"]:
    """Return the largest cosine of each row with a query or validation image of another file."""
    guarded = Vectors([features], splits=guarded_splits(features))
    own = torch.from_numpy(image_keys(features, rows).view(np.int64))
    other = torch.from_numpy(image_keys(features, guarded.sources[0].rows).view(np.int64))

    def allowed(positions: Int64[Tensor, " b"]) -> Bool[Tensor, "q b"]:
        return own[:, None] != other[positions][None]

    cosines, _ = search_exactly(guarded, features.unit("global", rows), 1, allowed=allowed)
    best = cosines[:, 0]
    return best[torch.isfinite(best)]


def _views(features: FeatureSet) -> str | None:
    """Return the component of global features of views with the most rows."""
    names = [n for n in features.fitting("views") if features.components[n].present().any()]
    return max(names, key=lambda n: int(features.components[n].present().sum()), default=None)


def _copies(features: FeatureSet, views: str) -> Float32[Tensor, " c"]:
    """Return the cosines of views with their own image."""
    both = features.components[views].present() & features.components["global"].present()
    rows = _spread(np.flatnonzero(both & features.ok))
    whole = features.unit("global", rows)
    return torch.einsum("rvd,rd->rv", features.unit(views, rows), whole).reshape(-1)


def _spread(rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " r"]:
    """Choose at most `IMAGES` rows, evenly spaced."""
    chosen: Int64[np.ndarray, " r"] = rows[
        np.unique(np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).astype(np.int64))
    ]
    return chosen
