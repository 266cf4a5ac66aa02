"""What a corpus depends on besides its rows: classes, query images, and labels if it read them."""

import hashlib

import numpy as np

from featcache.retrieval.corpora.images import guarded_rows, image_keys
from featcache.store.format.files import canonical
from featcache.types import FeatureSet


def classes_digest(features: FeatureSet) -> str:
    """Return 12 hex digits of the class names in label order."""
    return hashlib.sha256(canonical(list(features.classes))).hexdigest()[:12]


def queries_digest(features: FeatureSet) -> str:
    """Return 12 hex digits of the query and validation images, in any order."""
    keys = np.unique(image_keys(features, guarded_rows(features)))
    return hashlib.sha256(keys.astype("<u8").tobytes()).hexdigest()[:12]


def labels_digest(features: FeatureSet) -> str:
    """Return 12 hex digits of the labelled training images with their labels, in any order."""
    splits = features.listing.splits
    named = [n for n in splits if n == "train" or n.startswith("train@")]
    rows = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(splits[n] for n in named)]))
    rows = rows[features.labels[rows] >= 0]
    pairs = zip(features.labels[rows].tolist(), image_keys(features, rows).tolist(), strict=True)
    return hashlib.sha256(canonical(sorted(map(list, pairs)))).hexdigest()[:12]
