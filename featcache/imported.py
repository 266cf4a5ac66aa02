"""Imported features: no encoder can make them again, only the file that they came from."""

import shlex
from pathlib import Path

from featcache.keys import FeatureKey


def cure_of_imported(key: FeatureKey, path: Path, dataset: str, backbone: str) -> str:
    """Say how to put back imported features; say nothing of those that can be encoded again.

    Args:
        key: Of the cache.
        path: The cache.
        dataset: Its data set.
        backbone: Its backbone.
    """
    if not key.is_imported:
        return ""
    words = ["--name", dataset, "--backbone", backbone, "--cache", str(path.parent.parent)]
    return (
        f"Import the same file again, which puts back what is damaged or lost: "
        f"featcache import npz FILE {shlex.join(words)}"
    )
