"""What a corpus depends on besides its rows: the classes, and the images it was compared with."""

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
