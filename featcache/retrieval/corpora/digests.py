"""What a corpus depends on besides its rows: classes, query images, and labels if it read them."""

import hashlib
from collections.abc import Mapping
from typing import Any

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


def has_other_texts(facts: Mapping[str, Any], features: FeatureSet) -> bool:
    """Tell whether the texts that chose the rows of a corpus differ from those of the cache now.

    Args:
        facts: How the corpus was built; one by image has no texts.
        features: Cache of the data set that it is for.
    """
    kind = facts.get("text")
    if kind is None:
        return False
    bank = features.text
    if bank is None or kind not in bank.available():
        return True
    return bool(bank.digest(kind) != facts.get("text_digest"))
