"""Search takes an index that covers its vectors, and says so."""

from dataclasses import replace
from typing import Any

import pytest

import featcache
from featcache.retrieval.indexes.building import build_index
from featcache.types import FeatureSet
from tests.featcache.retrieval.random_caches import Make, grow


@pytest.fixture
def toys(make: Make) -> FeatureSet:
    pytest.importorskip("faiss")
    return make(images=400).feature_set()


def ids(found: Any) -> list[str]:
    return [hit.id for hit in found.hits]


def test_an_index_is_used_where_it_covers_the_vectors(toys: FeatureSet) -> None:
    said: list[Any] = []
    query: dict[str, Any] = {"row": "7.jpg", "caches": toys, "k": 5, "say": said.append}
    before = featcache.search(**query)
    assert (before.how, said) == ("exact", [])
    build_index([toys], "global", kind="ivf", parameters={"lists": 4, "probes": 4})
    after = featcache.search(**query)
    assert after.how == "ivf"
    assert ids(after) == ids(before)
    assert any("ivf" in str(note) for note in said)
    assert "7.jpg" not in ids(after)
    exact = featcache.search(**query, exact=True)
    assert (exact.how, ids(exact)) == ("exact", ids(before))


def test_an_index_that_lacks_rows_is_not_used(make: Make) -> None:
    import numpy as np

    cache = make(images=400, filled=300)
    build_index([cache.feature_set()], "global", kind="ivf", parameters={"lists": 4})
    grow(cache, np.arange(300, 400))
    said: list[Any] = []
    found = featcache.search(row="7.jpg", caches=cache.feature_set(), k=5, say=said.append)
    assert found.how == "exact"
    assert any("exactly" in str(note) for note in said)


def test_an_index_of_all_splits_is_not_called_stale_where_one_split_is_searched(
    make: Make,
) -> None:
    import numpy as np

    pytest.importorskip("faiss")
    cache = make(images=40)
    whole = cache.feature_set()
    build_index([whole], "global", kind="flat", name="every")
    half = np.arange(20, dtype=np.int64)
    listed = replace(whole.listing, splits={"train": half, "test": half + 20})
    cache.put_listing(listed)
    said: list[Any] = []
    found = featcache.search(
        row="3.jpg", caches=cache.feature_set(), k=5, split="test", say=said.append
    )
    assert (found.how, said) == ("exact", [])
    build_index([whole], "global", kind="hnsw", name="links")
    featcache.search(row="3.jpg", caches=cache.feature_set(), k=5, split="test", say=said.append)
    assert "covers all rows" in str(said)
    assert "Build it again" not in str(said)
