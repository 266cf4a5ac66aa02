"""What a reader of figures must know of the features behind them."""

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

from featcache.keys import FeatureKey
from featcache.sources.named import datasets

ONLY_MOTHS = (
    "tiny knows only drawn moths: good for trying the commands, not for results on other images. "
    "Extract with another backbone, e.g. ViT-B/32."
)


def caution(key: FeatureKey, root: str) -> str:
    """Say that features of the embedded model are of images it was not made for, if they are.

    Args:
        key: Of the features.
        root: Where the images were; a drawn world lies in a folder of its name.
    """
    drawn = {d.name for d in datasets() if d.kind == "drawn"}
    return ONLY_MOTHS if key.weights == _embedded() and Path(root).name not in drawn else ""


@cache
def _embedded() -> str:
    """Return the sha256 of the embedded weights."""
    file = resources.files("featcache.backbones.tiny").joinpath("weights.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
