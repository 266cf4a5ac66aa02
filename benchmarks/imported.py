"""CLIP features shared as .npz files: which file holds which data set, and its opened cache."""

from pathlib import Path

from featcache.importers.npz import import_npz
from featcache.types import FeatureSet

FILES = {
    "imagenet256": "imagenet256_vitb32.npz",
    "caltech50": "caltech50_vitb32.npz",
    "flowers": "oxford_flowers_vitb32.npz",
    "aircraft": "fgvc_vitb32.npz",
    "caltech101": "caltech101_vitb32.npz",
    "dtd": "dtd_vitb32.npz",
}
"""Data set -> its file; in the benchmarks that use it any other name is that of drawn images."""


def imported(dataset: str, folder: Path | None, root: Path) -> FeatureSet:
    """Open a data set of `FILES`, after importing it where that is to be done.

    Args:
        dataset: Name of the data set.
        folder: Folder of the files, without which nothing can be imported.
        root: Folder of all caches.
    """
    assert folder is not None
    return import_npz(folder / FILES[dataset], root, dataset, "ViT-B/32").feature_set()
