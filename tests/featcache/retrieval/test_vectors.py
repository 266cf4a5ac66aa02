"""Vectors of caches: their order, where they come from, what has none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CacheError, MissingComponentError, UnknownNameError, UsageError
from featcache.keys import ComponentKey
from featcache.retrieval import vectors as vectors_module
from featcache.retrieval.vectors import Vectors
from featcache.store.cache import Cache
from tests.featcache.retrieval.random_caches import DIM, clustered, make_cache


@pytest.fixture
def cache(ask: Any) -> Any:
    return Cache.open(ask(views=["2"]).path).feature_set()


@pytest.mark.parametrize(("kind", "parts"), [("global", 1), ("patches", 4), ("views", 2)])
def test_blocks_are_the_rows_in_order(cache: Any, kind: Any, parts: int) -> None:
    vectors = Vectors([cache, cache], kind)
    whole = torch.cat(list(vectors.blocks()))
    assert len(vectors) == len(whole)
    assert {s.parts for s in vectors.sources} == {parts}
    assert torch.equal(torch.cat(list(vectors.blocks(3))), whole)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).numpy()
    assert torch.equal(vectors.take(order), whole[torch.from_numpy(order)])
    places = vectors.places(order)
    for i in range(0, len(order), 7):
        source = vectors.sources[places.source[i]]
        row = cache.unit(source.component, places.row[i : i + 1]).reshape(parts, -1)
        assert torch.equal(whole[order[i]], row[places.part[i]])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc/self/maps here")
@pytest.mark.parametrize("most", [1, 2**40])
def test_shards_are_unmapped_after_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(vectors_module, "MAPPED_BYTES", most)
    feature_set = make_cache(tmp_path / "home", patches=4).feature_set()
    vectors = Vectors([feature_set], "patches")
    for read in (lambda: list(vectors.blocks(100)), lambda: vectors.take(np.arange(0, 2400, 7))):
        read()
        maps = Path("/proc/self/maps").read_text().splitlines()
        mapped = [line for line in maps if str(feature_set.path) in line and "patches" in line]
        assert bool(mapped) == (most > 1)


def test_splits_choose_rows(cache: Any) -> None:
    vectors = Vectors([cache], splits=["val"])
    assert vectors.sources[0].rows.tolist() == sorted(cache.listing.splits["val"].tolist())
    with pytest.raises(UnknownNameError, match="tst"):
        Vectors([cache], splits=["tst"])


def test_what_cannot_be_searched_is_refused(cache: Any) -> None:
    with pytest.raises(MissingComponentError, match="no crops") as caught:
        Vectors([cache], "crops")
    assert caught.value.suggestion is not None
    assert caught.value.suggestion.arguments["crops"] == ["60"]
    with pytest.raises(MissingComponentError, match=r"no views of weak .* views=\['1:weak'\]"):
        Vectors([cache], "views", recipe="weak")
    with pytest.raises(UnknownNameError, match="recipe of views 'waek'; did you mean 'weak'"):
        Vectors([cache], "views", recipe="waek")
    with pytest.raises(MissingComponentError, match=r"patches=\['maskclip'\]"):
        Vectors([cache], "patches", recipe="maskclip")
    with pytest.raises(UsageError, match="one cache or more"):
        Vectors([])
    with pytest.raises(UsageError, match="positions"):
        Vectors([cache]).take(np.array([99999]))
    with pytest.raises(UnknownNameError, match="patchs"):
        Vectors([cache], "patchs")


def test_other_keys_are_refused(cache: Any) -> None:
    other = replace(cache, key=replace(cache.key, weights="random-1"))
    with pytest.raises(CacheError, match="one key"):
        Vectors([cache, other])


def test_some_rows_of_each_cache(cache: Any) -> None:
    vectors = Vectors([cache, cache], "patches")
    some = vectors.within([np.array([1, 3]), np.array([2, 10**6])])
    assert len(some) == 3 * 4
    assert torch.equal(
        torch.cat(list(some.blocks())),
        cache.unit("patches.clearclip", np.array([1, 3, 2])).flatten(0, 1),
    )
    assert some.places(np.array([11])).row.tolist() == [2]
    assert len(vectors) > len(some)


def test_patches_of_several_caches_are_of_one_variant(tmp_path: Path) -> None:
    first = make_cache(tmp_path, "first", 8, patches=3).feature_set()
    second = make_cache(tmp_path, "second", 8)
    part = ComponentKey(kind="patches", variant="clearclip")
    rows = np.arange(8, dtype=np.int64)
    second.append(part, rows, clustered(1, 8, (3, DIM)), {}, {"featcache": "0", "device": "cpu"})
    with pytest.raises(MissingComponentError, match="no patches of vanilla"):
        Vectors([first, second.feature_set()], "patches")
