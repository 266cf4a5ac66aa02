"""Every named data set goes through the whole pass, from its miniature to rows."""

from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.sources.named import datasets
from tests.featcache.sources.miniatures import MINIATURES, Miniature

FIRST = {m.dataset: m for m in reversed(MINIATURES)}
"""One miniature of each data set."""


def encode(miniature: Miniature, root: Path) -> None:
    """Extract a miniature with the embedded model and compare the rows with its labels."""
    miniature.write(root / "images")
    cache = featcache.extract(
        miniature.dataset, "tiny", root=root, splits=miniature.splits, patches=["none"]
    )
    listing = cache.listing
    labels = {image_id: label for image_id, label, _ in miniature.samples}
    rows = {image_id: row for row, image_id in enumerate(listing.ids)}
    assert rows.keys() == labels.keys()
    assert all(listing.labels[rows[image_id]] == labels[image_id] for image_id in labels)
    readable = np.flatnonzero(cache.ok)
    assert len(readable)
    features = cache.components["global"].take(readable).float()
    assert (features.norm(dim=1) > 0).all()


def test_a_data_set_with_wrong_suffixes_and_unlisted_files(tmp_path: Path) -> None:
    encode(FIRST["oxford_pets"], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(d.name for d in datasets() if d.kind == "listed"))
def test_every_data_set(name: str, tmp_path: Path) -> None:
    encode(FIRST[name], tmp_path)
