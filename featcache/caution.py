"""A warning for features of the embedded model on images it was not trained for."""

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

from featcache.keys import FeatureKey
from featcache.sources.named import datasets

ONLY_MOTHS = (
    "tiny was trained on drawn moths only: use it to try the commands, not for other images. "
    "Extract with another backbone, e.g. ViT-B/32."
)


def caution(key: FeatureKey, root: str) -> str:
    """Return a warning if the embedded model encoded images other than drawn moths.

    Args:
        key: Key of the features.
        root: Folder of the images; a drawn world is in a folder of its name.
    """
    drawn = {d.name for d in datasets() if d.kind == "drawn"}
    return ONLY_MOTHS if key.weights == _embedded() and Path(root).name not in drawn else ""


@cache
def _embedded() -> str:
    """Return the sha256 of the embedded weights."""
    file = resources.files("featcache.backbones.tiny").joinpath("weights.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
