import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import (
    CacheError,
    CacheNotFoundError,
    CorruptCacheError,
    UnknownNameError,
    UsageError,
)
from featcache.store.cache import Cache
from featcache.store.format.seal import seal, unseal
from featcache.store.library import (
    cache_root,
    caches,
    check_name,
    find_cache,
    find_summaries,
)
from featcache.store.removal import remove
from featcache.types import FeatureKey, TextBank
from featcache.wording import in_python

Make = Callable[..., Any]


def finish(root: Path, dataset: str, backbone: str, key: FeatureKey, listing: Make) -> Cache:
    made = Cache.create(root, dataset, backbone, replace(key, architecture=backbone))
    made.put_listing(listing(3))
    made.finish(components=[], images=3, seconds=0.5, complete=True)
    return made


def test_root_is_the_option_then_the_variable_then_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_root(tmp_path / "option") == tmp_path / "option"
    assert cache_root(None) == tmp_path / "home"
    monkeypatch.delenv("FEATCACHE_HOME")
    assert cache_root(None) == tmp_path / "xdg" / "featcache"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root(None) == Path.home() / ".cache" / "featcache"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_root(None) == Path.home() / "Library" / "Caches" / "featcache"


def test_summary_of_a_cache(cache: Cache, bank: TextBank) -> None:
    cache.put_text(bank, {})
    [found] = caches(cache.path.parents[1])
    assert (found.dataset, found.backbone, found.images) == ("toys", "Toy/1", 20)
    part = found.components["global"]
    assert (part.rows, part.shape, part.shards) == (10, (8,), 2)
    assert part.bytes == sum(p.stat().st_size for p in cache.path.glob("global/*.h5"))
    assert [name.partition(".")[0] for name in found.components] == ["global", "text"]
    assert found.complete
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["bytes"] == found.bytes
    assert plain["components"]["global"]["rows"] == 10


def test_the_one_finished_last_is_taken(tmp_path: Path, key: FeatureKey, listing: Make) -> None:
    finish(tmp_path, "pets", "ViT-B/16", key, listing)
    last = finish(tmp_path, "moths", "tiny", key, listing)
    again = finish(tmp_path, "pets", "tiny", key, listing)
    Cache.create(tmp_path, "birds", "tiny", key)
    assert find_cache(tmp_path).path == again.path
    assert find_cache(tmp_path, "moths").path == last.path
    assert find_cache(tmp_path, "pets").backbone == "tiny"
    assert find_cache(tmp_path, "pets", "vit-b/16").backbone == "ViT-B/16"
    assert [s.finished_text for s in find_summaries(tmp_path, "birds")] == ["unfinished"]


def test_unknown_names_and_nothing_at_all(tmp_path: Path, key: FeatureKey, listing: Make) -> None:
    with pytest.raises(CacheNotFoundError, match=r"featcache\.extract\(dataset='eurosat'"):
        find_cache(tmp_path / "nowhere", "eurosat")
    finish(tmp_path, "pets", "tiny", key, listing)
    Cache.create(tmp_path, "birds", "tiny", key)
    with pytest.raises(UnknownNameError, match="did you mean 'pets'"):
        find_cache(tmp_path, "pet")
    with pytest.raises(UnknownNameError, match="backbone 'ViT-L/14'"):
        find_cache(tmp_path, "pets", "ViT-L/14")
    with pytest.raises(CacheNotFoundError, match=r"interrupted.*\.extract\(dataset='birds'"):
        find_cache(tmp_path, "birds")


def test_a_damaged_cache_is_listed_and_stays_out_of_the_way(
    tmp_path: Path, key: FeatureKey, listing: Make
) -> None:
    finish(tmp_path, "moths", "tiny", key, listing)
    broken = finish(tmp_path, "pets", "tiny", key, listing)
    (broken.path / "manifest.jsonl").write_bytes(b"noise\n")
    found = caches(tmp_path)
    assert [s.dataset for s in found] == ["moths", "pets"]
    assert found[1].finished_text == "unreadable"
    assert "manifest.jsonl" in in_python([found[1].problem])
    assert find_cache(tmp_path).dataset == "moths"
    with pytest.raises(CorruptCacheError):
        find_cache(tmp_path, "pets")
    assert remove(tmp_path, broken.path) > 0
    assert len(caches(tmp_path)) == 1


def test_remove_frees_one_cache_and_nothing_else(
    tmp_path: Path, cache: Cache, key: FeatureKey, listing: Make
) -> None:
    root = cache.path.parents[1]
    other = finish(root, "toys", "other", key, listing)
    size = sum(p.stat().st_size for p in cache.path.rglob("*") if p.is_file())
    assert remove(root, cache.path) >= size
    assert [s.path for s in caches(root)] == [other.path]
    remove(root, other.path)
    assert list(root.iterdir()) == []


def test_remove_refuses_what_is_not_a_cache_of_this_root(tmp_path: Path, cache: Cache) -> None:
    root = cache.path.parents[1]
    victim = tmp_path / "elsewhere" / "photos" / "mine"
    victim.mkdir(parents=True)
    (victim / "key.json").write_text("{}")
    (root / "link").mkdir()
    (root / "link" / "cache").symlink_to(victim)
    (root / "plain" / "folder").mkdir(parents=True)
    for path in (
        victim,
        root,
        root / "toys",
        root / "link" / "cache",
        root / "plain" / "folder",
        cache.path / "global",
        root / "toys" / ".." / ".." / "elsewhere" / "photos" / "mine",
    ):
        with pytest.raises(CacheError, match="left alone"):
            remove(root, path)
    assert (victim / "key.json").exists()
    with cache.lock(), pytest.raises(CacheError, match="is writing"):
        remove(root, cache.path)
    assert np.asarray(Cache.open(cache.path).covered("global")).sum() == 10


def test_a_home_that_nobody_has_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="~nobody-here/c"):
        cache_root(Path("~nobody-here/c"))
    monkeypatch.setenv("FEATCACHE_HOME", "~nobody-here/d")
    with pytest.raises(UsageError, match="~nobody-here/d"):
        cache_root(None)


def test_a_file_is_no_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"file is a file, not a folder.*with root\."):
        cache_root(tmp_path / "file")
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CacheError, match=r"file is a file, not a folder.*FEATCACHE_HOME"):
        cache_root(None)


def test_a_file_in_the_place_of_the_root_is_named(tmp_path: Path, key: FeatureKey) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheError, match=r"is a file.*root"):
            Cache.create(root, "pets", "tiny", key)


def test_a_cache_of_a_later_format_is_not_called_damaged(
    tmp_path: Path, key: FeatureKey, listing: Make
) -> None:
    path = finish(tmp_path, "moths", "tiny", key, listing).path / "key.json"
    value, _ = unseal(path.read_bytes()[:-1])
    path.write_bytes(seal({**value, "format": 9})[0])
    (found,) = caches(tmp_path)
    assert found.finished_text == "unreadable"
    assert "format 9" in in_python([found.problem])


def test_a_cache_of_format_1_can_be_listed_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "moths" / "tiny-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "key.json").write_text('{\n "format": 1,\n "dataset": "moths"\n}\n')
    (folder / "manifest.jsonl").write_text('{"format":1,"kind":"header","crc":"01234567"}\n')
    (found,) = caches(tmp_path)
    assert (found.dataset, found.backbone, found.digest) == ("moths", "tiny", "0123456789ab")
    assert "format 2 only" in in_python([found.problem])
    assert "featcache rm" in in_python([found.problem])
    assert remove(tmp_path, folder) > 0
    assert caches(tmp_path) == []


@pytest.mark.parametrize("name", ["key.json", "manifest.jsonl"])
def test_a_cache_that_lost_one_of_its_two_names_is_still_one(cache: Cache, name: str) -> None:
    root = cache.path.parents[1]
    (cache.path / name).unlink()
    (found,) = caches(root)
    assert name in in_python([found.problem])
    assert "featcache repair" in in_python([found.problem])
    assert remove(root, cache.path) > 0
    assert caches(root) == []


@pytest.mark.parametrize("name", ["pets", "CUB-200_2011", "Größe 3", "a.b", "_x", "7"])
def test_plain_names(tmp_path: Path, name: str) -> None:
    check_name(tmp_path, name)


@pytest.mark.parametrize("name", ["../../esc", "a/b", ".", "..", "-rf", "pets ", "", "a\nb", "(5)"])
def test_names_that_are_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name takes"):
        check_name(tmp_path, name)


def test_a_name_that_is_there_already_stays(tmp_path: Path, key: FeatureKey) -> None:
    Cache.create(tmp_path, "pets (5)", "tiny", key)
    check_name(tmp_path, "pets (5)")


def test_a_wrong_clock_makes_no_cache_the_default_for_good(
    tmp_path: Path, key: FeatureKey, listing: Make
) -> None:
    finish(tmp_path, "right", "B", key, listing)
    wrong = Cache.create(tmp_path, "wrong", "B", key)
    wrong.put_listing(listing(3))
    Cache.create(tmp_path, "begun", "B", key).put_listing(listing(3))
    done: dict[str, Any] = {"components": [], "images": 3, "seconds": 0.5, "complete": True}
    wrong.finish(**done, when=time.time() + 1e9)
    assert [s.dataset for s in caches(tmp_path)] == ["right", "wrong", "begun"]
    assert find_cache(tmp_path).dataset == "right"
    assert find_cache(tmp_path, "wrong").dataset == "wrong"
    assert "by a wrong clock" in caches(tmp_path)[1].finished_text
    wrong.finish(**done)  # the clock is right again
    assert find_cache(tmp_path).dataset == "wrong"
    wrong.finish(**done, when=time.time() - 60)  # and goes back a little
    assert find_cache(tmp_path).dataset == "wrong"
    assert "clock" not in caches(tmp_path)[0].finished_text


def test_a_damaged_pointer_is_damage_and_no_interruption(
    tmp_path: Path, key: FeatureKey, listing: Make
) -> None:
    made = finish(tmp_path, "birds", "B", key, listing)
    (made.path / "listing" / "current.json").write_bytes(b"{}\n")
    with pytest.raises(CorruptCacheError, match=r"current\.json .*featcache repair"):
        find_cache(tmp_path)
