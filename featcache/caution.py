"""A warning for features of an embedded model on images it was not trained for."""

import hashlib
from functools import cache
from pathlib import Path

from featcache.backbones.names import EMBEDDED, embedded_weights
from featcache.keys import FeatureKey
from featcache.sources.named import datasets

ONLY_MOTHS = (
    "{} was trained on drawn moths only: use it to try the commands, not for other images. "
    "Extract with another backbone, e.g. ViT-B/32."
)


def caution(key: FeatureKey, root: str) -> str:
    """Return a warning if an embedded model encoded images other than drawn moths.

    Args:
        key: Key of the features.
        root: Folder of the images; a drawn world is in a folder of its name.
    """
    drawn = {d.name for d in datasets() if d.kind == "drawn"}
    name = _embedded().get(key.weights)
    return ONLY_MOTHS.format(name) if name and Path(root).name not in drawn else ""


@cache
def _embedded() -> dict[str, str]:
    """Map the sha256 of embedded weights to the name of their model."""
    files = {name: embedded_weights(name) for name in EMBEDDED}
    return {
        hashlib.sha256(file.read_bytes()).hexdigest(): name
        for name, file in files.items()
        if file.is_file()
    }
