"""Read the manifest and the state of a cache in tests."""

from pathlib import Path
from typing import Any

import numpy as np

from featcache.store.cache import Cache


def manifest(cache: Cache) -> Path:
    return cache.path / "manifest.jsonl"


def state(cache: Cache) -> Any:
    """What a cache holds, whatever the order of its lines."""
    opened = Cache.open(cache.path)
    shards = sorted((s.component, s.file) for lines in opened.shards.values() for s in lines)
    features = opened.feature_set().rows("global", np.arange(20)).numpy().tobytes()
    return shards, features, opened.bad_rows(), opened.text_line
