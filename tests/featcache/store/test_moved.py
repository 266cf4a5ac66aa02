"""Where images are after the caches or the named data sets were moved."""

from pathlib import Path

import pytest

from featcache.keys import FeatureKey
from featcache.store.cache import Cache
from featcache.store.moved import current_root


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("inside", ["zoo", "pets/images"])
def test_images_follow_caches_that_were_moved_or_copied(
    tmp_path: Path, key: FeatureKey, cached: bool, there: bool, inside: str
) -> None:
    """A folder of the user that is still there, below no folder of caches, stays meant."""
    old, new = tmp_path / "old", tmp_path / "new"
    before, now = (root / "images" / inside for root in (old, new))
    now.mkdir(parents=True)
    if there:
        before.mkdir(parents=True)
    if cached:
        Cache.create(old, "zoo", "toy", key)
    expected = before if there and not cached else now
    assert current_root(str(before), "zoo", new) == str(expected)
    assert current_root(str(old / "images" / "other"), "zoo", new) == str(old / "images" / "other")


def test_a_named_data_set_follows_the_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches, old, new = tmp_path / "caches", tmp_path / "old", tmp_path / "new"
    before, now = (root / "oxford_pets" / "images" for root in (old, new))
    now.mkdir(parents=True)
    monkeypatch.delenv("FEATCACHE_DATA", raising=False)
    assert current_root(str(before), "oxford_pets", caches) == str(before)
    assert current_root(str(before), "oxford_pets", caches, new) == str(now)
    monkeypatch.setenv("FEATCACHE_DATA", str(new))
    assert current_root(str(before), "pets", caches) == str(now)
    assert current_root(str(before), "my photos", caches) == str(before)
    before.mkdir(parents=True)  # two copies: the user has to say that they are the same
    assert current_root(str(before), "oxford_pets", caches) == str(before)
