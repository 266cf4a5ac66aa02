"""Indexes beside caches: built, appended to, stale, damaged, interrupted, removed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import (
    CacheError,
    CacheNotFoundError,
    CorruptCacheError,
    MissingComponentError,
    UnknownNameError,
    UsageError,
)
from featcache.retrieval import index as index_module
from featcache.retrieval.exact import search_exactly
from featcache.retrieval.index import open_index
from featcache.retrieval.indexes import arrays, building, folder
from featcache.retrieval.indexes.building import add_to_index, build_index, rebuild_index
from featcache.retrieval.indexes.folder import (
    INDEXES,
    index_names,
    read_description,
    remove_index,
    verify_index,
)
from featcache.retrieval.indexes.state import freshness
from featcache.retrieval.vectors import Vectors
from featcache.store.cache import Cache
from featcache.store.library import caches
from featcache.store.lock import writer_lock
from featcache.store.removal import all_left, remove
from featcache.store.repair.verify import repair, verify
from tests.featcache.retrieval.random_caches import KEY, Make, grow

faiss = pytest.importorskip("faiss")

KINDS = ("flat", "ivf", "hnsw", "ivfpq")


def root_of(cache: Cache) -> Path:
    return cache.path.parent.parent


def assert_finds(cache_list: list[Cache], of: str, name: str, *, least: float = 0.9) -> None:
    """The index finds what exact search finds, and says the true cosines."""
    vectors = Vectors([c.feature_set() for c in cache_list], of)
    queries = vectors.take(np.arange(0, len(vectors), len(vectors) // 20))
    opened = open_index(vectors, name=name)
    cosines, at = opened.search(queries, 5)
    true_cosines, true = search_exactly(vectors, queries, 5)
    assert (true[:, :, None] == at[:, None]).any(2).float().mean() >= least
    assert torch.allclose(cosines[:, 0], true_cosines[:, 0], atol=1e-5)
    for query, own, said in zip(queries, at, cosines, strict=True):
        assert torch.allclose(vectors.take(own.numpy()) @ query, said, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_over_two_caches_that_grow(make: Make, kind: str) -> None:
    two = [make("toys", 400, filled=300, patches=2), make("more", 200, patches=2)]
    built = build_index([c.feature_set() for c in two], "patches", kind=kind, name="both")
    assert (built.added, built.index.vectors) == (1000, 1000)
    assert kind == "flat" or (built.index.recall and built.index.recall.value > 0.9)
    assert_finds(two, "patches", "both")
    assert_finds(two[::-1], "patches", "both")
    grow(two[0], np.arange(300, 400), 2)
    root = root_of(two[0])
    assert freshness(root, built.index).state == "grown"
    grown = Vectors([c.feature_set() for c in two], "patches")
    with pytest.raises(CacheError, match="has grown"):
        open_index(grown, name="both")
    stale = open_index(grown)
    assert stale.index is None
    assert stale.is_exact
    assert "has grown" in str(CacheError(*stale.notes))
    assert add_to_index("both", root).added == 200
    assert add_to_index("both", root).added == 0
    assert_finds(two, "patches", "both")
    used = open_index(grown).index
    assert used is not None
    assert (used.name, used.vectors) == ("both", 1200)
    assert verify_index(root, "both").vectors == 1200


def test_other_components_of_a_cache_leave_an_index_fresh(make: Make) -> None:
    cache = make(images=60, filled=40, patches=0)
    index = build_index([cache.feature_set()], name="it").index
    cache.finish(components=["global"], images=60, seconds=1.0, complete=True)
    assert freshness(root_of(cache), index).state == "fresh"


def test_an_equal_index_is_not_built_twice(make: Make) -> None:
    cache = make(images=300)
    first = build_index([cache.feature_set()], kind="ivf", name="it")
    assert build_index([cache.feature_set()], kind="ivf", name="it").added == 0
    other = build_index([cache.feature_set()], kind="ivf", name="it", parameters={"lists": 3})
    assert (other.added, other.index.parameters["lists"]) == (300, 3)
    assert first.index.folder != other.index.folder
    assert build_index([cache.feature_set()]).index.name == "toys-Toy-1-global"


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_lost_rows_ask_for_another_build(make: Make, kind: str) -> None:
    cache = make(images=100, filled=60)
    grow(cache, np.arange(60, 100))
    root = root_of(cache)
    build_index([cache.feature_set()], kind=kind, name="it")
    cache.drop("global", cache.shards["global"][0].file)
    vectors = Vectors([cache.feature_set()])
    for call in (lambda: open_index(vectors, name="it"), lambda: add_to_index("it", root)):
        with pytest.raises(CacheError, match=r"other rows.*rebuild_index"):
            call()
    assert rebuild_index("it", root).index.vectors == 40
    assert open_index(vectors, name="it").search(vectors.take(np.array([1])), 1)[1].item() == 1


def test_a_removed_cache(make: Make) -> None:
    cache = make(images=40)
    root = root_of(cache)
    index = build_index([cache.feature_set()], name="it").index
    remove(root, cache.path)
    assert freshness(root, index).state == "removed"
    with pytest.raises(CacheError, match=r"is gone.*remove_index\(name='it'\)"):
        add_to_index("it", root)
    remove_index(root, "it")
    assert not (root / INDEXES).exists()


def test_caches_do_not_trip_over_indexes(make: Make) -> None:
    cache = make(images=300, patches=2)
    root = root_of(cache)
    for kind in KINDS:
        build_index([cache.feature_set()], "patches", kind=kind, name=f"x-{'0' * 12}"[:-1] + kind)
    assert [c.path for c in caches(root)] == [cache.path]
    assert all_left(root) == []
    assert verify(cache.path).is_sound
    assert repair(cache.path).notes == verify(cache.path).notes
    before = index_names(root)
    remove(root, cache.path)
    assert index_names(root) == before


def test_what_cannot_be_built_is_refused(make: Make) -> None:
    cache = make(images=60)
    features = cache.feature_set()
    with pytest.raises(MissingComponentError, match="no patches"):
        build_index([features], "patches")
    with pytest.raises(UnknownNameError, match="kind of index"):
        build_index([features], kind="annoy")
    with pytest.raises(UnknownNameError, match="kind of vectors"):
        build_index([features], "patchs")
    with pytest.raises(UsageError, match="each cache once"):
        build_index([features, features])
    with pytest.raises(UsageError, match="name of an index"):
        build_index([features], name="../out")
    with pytest.raises(UnknownNameError, match="Unknown parameter"):
        build_index([features], parameters={"lists": 2})
    other = make("other", 60, key=replace(KEY, weights="1" * 64))
    with pytest.raises(CacheError, match="one key"):
        build_index([features, other.feature_set()])
    build_index([features], name="it")
    with pytest.raises(UsageError, match="exists already"):
        build_index([other.feature_set()], name="it")
    empty = replace(features, ok=np.zeros(60, dtype=bool))
    with pytest.raises(UsageError, match="nothing to index"):
        build_index([empty], name="none")
    assert index_names(root_of(cache)) == ["it"]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_searches_are_refused(make: Make, kind: str) -> None:
    cache = make(images=300)
    build_index([cache.feature_set()], kind=kind, name="it")
    vectors = Vectors([cache.feature_set()])
    opened = open_index(vectors, name="it")
    with pytest.raises(UsageError, match="between 1 and the 300"):
        opened.search(vectors.take(np.array([0])), 301)
    with pytest.raises(UsageError, match="width 3"):
        opened.search(torch.ones(1, 3), 1)
    every = opened.search(vectors.take(np.array([0])), 300)[1]
    assert sorted(every[0].tolist()) == list(range(300))


def test_an_index_of_other_vectors_is_refused(make: Make) -> None:
    cache, other = make(images=40, patches=2), make("other", 40)
    root = root_of(cache)
    vectors = Vectors([cache.feature_set()])
    with pytest.raises(CacheNotFoundError, match="no index 'it'"):
        open_index(vectors, name="it")
    build_index([other.feature_set()], name="it")
    with pytest.raises(UnknownNameError, match="covers global of other"):
        open_index(vectors, name="it")
    with pytest.raises(UnknownNameError, match="did you mean 'it'"):
        add_to_index("its", root)
    assert open_index(vectors).index is None
    assert open_index(vectors).notes == ()


def test_without_faiss_the_search_is_exact_and_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(images=300)
    build_index([cache.feature_set()], kind="ivf", name="lists")
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    monkeypatch.setattr(index_module, "has_faiss", lambda: False)
    vectors = Vectors([cache.feature_set()])
    opened = open_index(vectors)
    assert opened.is_exact
    assert "pip install 'featcache[cpu]'" in str(CacheError(*opened.notes))
    assert opened.search(vectors.take(np.array([7])), 2)[1][0, 0].item() == 7
    with pytest.raises(UsageError, match="kind flat"):
        build_index([cache.feature_set()], kind="hnsw")
    assert build_index([cache.feature_set()], kind="flat", name="flat").index.vectors == 300


@pytest.mark.parametrize("array", ["codes", "ids", "rows"])
def test_damage_is_found(make: Make, array: str) -> None:
    cache = make(images=300)
    root = root_of(cache)
    index = build_index([cache.feature_set()], kind="ivf", name="it").index
    path = root / INDEXES / "it" / index.folder / f"{array}.bin"
    sound = path.read_bytes()
    vectors = Vectors([cache.feature_set()])

    def refused(says: str) -> None:
        with pytest.raises(CorruptCacheError, match=says):
            open_index(vectors, name="it")
        with pytest.raises(CorruptCacheError, match=says):
            verify_index(root, "it")
        opened = open_index(vectors)
        assert opened.is_exact
        assert opened.notes

    path.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
    refused("checksum")
    path.write_bytes(sound[:-1])
    refused("size")
    path.unlink()
    refused("missing")
    path.symlink_to("/etc/passwd")
    refused("symbolic link")
    path.unlink()
    path.write_bytes(sound[:-1])
    assert build_index([cache.feature_set()], kind="ivf", name="it").added == 300
    assert not open_index(vectors).is_exact
    description = root / INDEXES / "it" / folder.DESCRIPTION
    description.write_bytes(description.read_bytes().replace(b"ivf", b"IVF"))
    refused("is not what was written|has fields")


class Stop(Exception):  # noqa: N818  # stands for a kill
    pass


def steps(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> Callable[[], int]:
    """Raise at the given write or deletion of a build; return how many there were."""
    count = [0]

    def stopping(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            count[0] += 1
            if count[0] == stop_at:
                raise Stop
            return real(*args, **more)

        return call

    for module, name in (
        (building, "write_array"),
        (building, "put"),
        (folder, "make_folder"),
        (folder, "write_atomically"),
        (folder, "sync_folder"),
        (arrays, "write_all"),
    ):
        monkeypatch.setattr(module, name, stopping(getattr(module, name)))
    return lambda: count[0]


def test_a_build_that_stops_anywhere_leaves_the_old_index_or_the_new_one(make: Make) -> None:
    cache = make(images=60, filled=40)
    root = root_of(cache)
    build_index([cache.feature_set()], kind="ivf", name="it")
    grow(cache, np.arange(40, 60))
    stop_at, finished = 0, False
    while not finished:
        stop_at += 1
        with pytest.MonkeyPatch.context() as patch:
            done = steps(patch, stop_at)
            patch.setattr(folder, "_delete_unused", lambda *_: None)  # nobody cleans up when killed
            try:
                add_to_index("it", root)
                finished = done() < stop_at
            except Stop:
                pass
        verify_index(root, "it")
        assert read_description(root, "it").vectors in (40, 60)
    assert stop_at > 10
    assert read_description(root, "it").vectors == 60
    assert len(list((root / INDEXES / "it").glob("arrays-*"))) > 2
    rebuild_index("it", root)
    build_index([cache.feature_set()], kind="ivf", name="it", parameters={"lists": 2})
    assert len(list((root / INDEXES / "it").glob("arrays-*"))) == 1


def test_one_builder_at_a_time(make: Make) -> None:
    cache = make(images=40)
    root = root_of(cache)
    build_index([cache.feature_set()], name="it")
    with (
        writer_lock(root / INDEXES / "it", lambda _: None),
        pytest.raises(CacheError, match="Another process"),
    ):
        build_index([cache.feature_set()], name="it", kind="hnsw")
    with (
        writer_lock(root / INDEXES / "it", lambda _: None),
        pytest.raises(CacheError, match="Another process"),
    ):
        remove_index(root, "it")


def test_what_another_process_added_first_is_no_damage(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(images=60, filled=40)
    root = root_of(cache)
    build_index([cache.feature_set()], kind="hnsw", name="it")
    grow(cache, np.arange(40, 60))
    waits = folder.replacing

    def second(*args: Any) -> Any:
        monkeypatch.setattr(building, "replacing", waits)
        assert add_to_index("it", root).added == 20  # while the first waits for the lock
        return waits(*args)

    monkeypatch.setattr(building, "replacing", second)
    assert add_to_index("it", root).added == 0


def test_files_of_others_are_not_deleted(make: Make) -> None:
    cache = make(images=40)
    root = root_of(cache)
    build_index([cache.feature_set()], name="it")
    (root / INDEXES / "it" / "notes.txt").write_text("mine")
    with pytest.raises(CacheError, match=r"notes\.txt does not belong"):
        remove_index(root, "it")
    (root / "elsewhere").mkdir()
    (root / INDEXES / "link").symlink_to(root / "elsewhere")
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        remove_index(root, "link")
