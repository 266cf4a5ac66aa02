"""Which images are the same file: 64-bit keys of their content hashes.

Imported features have no hashes of files. A row of theirs equals only itself.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64, UInt64

from featcache.types import FeatureSet


def image_keys(
    features: FeatureSet, rows: Int64[np.ndarray, " r"] | Iterable[int]
) -> UInt64[np.ndarray, " r"]:
    """Return one number per image, equal for equal files.

    Two of a million different files are equal with a probability of 3e-8.
    """
    hashes = features.listing.hashes
    rows = [int(row) for row in rows]
    if features.key.is_imported:
        own = f"{features.listing.dataset}/{features.key.digest()}/"
        texts = [hashlib.sha256(f"{own}{hashes[row]}".encode()).hexdigest() for row in rows]
    else:
        texts = [hashes[row] for row in rows]
    return np.array([int(text[:16], 16) for text in texts], dtype=np.uint64)


def guarded_splits(features: FeatureSet) -> tuple[str, ...]:
    """Return the splits that heads are selected and evaluated on.

    These are all but `train` and `train@K`, and those without a label.
    """
    return tuple(
        name
        for name, rows in features.listing.splits.items()
        if name != "train" and not name.startswith("train@") and (features.labels[rows] >= 0).any()
    )


def guarded_rows(features: FeatureSet) -> Int64[np.ndarray, " r"]:
    """Return the usable rows of these splits, ascending."""
    listed = features.listing.splits
    rows = [listed[name] for name in guarded_splits(features)]
    union = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *rows]))
    usable: Int64[np.ndarray, " r"] = union[features.ok[union]]
    return usable
