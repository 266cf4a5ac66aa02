"""A data set, and unlabelled images like its own with some of its query images among them."""

from pathlib import Path

import numpy as np
import pytest

from featcache.types import FeatureSet
from tests.featcache.retrieval.corpora.worlds import (
    D,
    hashed,
    make_cache,
    near_centres,
    target_in,
    views_of,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def target(root: Path) -> FeatureSet:
    return target_in(root)


@pytest.fixture(scope="module")
def wild(root: Path, target: FeatureSet) -> FeatureSet:
    """Images like those of the target, with some of its query images among them."""
    n = 300
    values, labels = near_centres(12, n, noise=1.2)
    hashes = hashed("wild", n)
    test = target.listing.rows("test")
    values[:5] = target.rows("global", test[:5]).numpy()  # the same files
    hashes[:5] = [target.listing.hashes[r] for r in test[:5]]
    values[5:10] = views_of(target.rows("global", test[5:10]).numpy())[:, 0]  # edited copies
    hashes[11] = hashes[10]  # twice the same file
    patches = np.random.default_rng(3).normal(size=(n, 4, D)).astype(np.float16)
    return make_cache(
        root, "wild", values, np.full_like(labels, -1), {"train": range(n)},
        hashes=hashes, more={"patches.clearclip": patches},
    )  # fmt: skip
