"""A small data set of photographs through a real pass with the embedded model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.pipeline.run import Request, extract
from featcache.store.cache import Cache
from featcache.types import FeatureSet
from tests.featcache.conftest import picture

BATCH = 4
"""Images in a batch: short ones are padded, and the usual size would take seconds each time."""
TORN = Path("test/bee/torn.jpg")
"""An image that cannot be read."""


def extracted(
    home: Path,
    classes: Sequence[str],
    splits: Mapping[str, int],
    *,
    torn: bool = False,
    **more: Any,
) -> FeatureSet:
    """Draw photographs, extract their features and open the cache.

    Args:
        home: Folder for the images and the cache.
        classes: Names of the folders of the classes.
        splits: Name of a split -> images of each class.
        torn: Whether TORN is among the images.
        more: Further fields of the request.
    """
    root = home / "zoo"
    for split, each in splits.items():
        for number, name in enumerate(classes):
            where = root / split / name
            where.mkdir(parents=True)
            for i in range(each):
                seed = 100 * number + 10 * i + len(split)
                picture(seed, (40 + 3 * i, 60)).save(where / f"{i}.jpg", quality=90)
    if torn:
        (root / TORN).write_bytes(b"\xff\xd8 nothing")
    descriptions = home / "descriptions.json"
    descriptions.write_text(json.dumps({name: [f"a small {name}."] for name in classes}))
    request = Request(
        dataset=f"folder:{root}",
        backbone="tiny",
        root=home / "home",
        descriptions=descriptions,
        micro_batch=BATCH,
        allow_bad=torn,
        **more,
    )
    return Cache.open(extract(request).path).feature_set()
