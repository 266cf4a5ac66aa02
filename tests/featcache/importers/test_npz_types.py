"""Imported features keep their digits: float16, float32, and float64 rounded to float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CacheError
from featcache.importers.npz import import_npz
from featcache.importers.table import read_table
from featcache.store.library import find_cache
from featcache.store.removal import remove
from featcache.store.repair.verify import verify
from featcache.wording import Part, in_python
from tests.featcache.importers.npz_files import again, arrays, bring, files, save, unit


def wide(dtype: Any, scale: float = 1.0) -> dict[str, Any]:
    """Return the feature arrays in more digits than float16 has."""
    rng = np.random.default_rng(7)
    return {
        name: (scale * rng.standard_normal(values.shape)).astype(dtype)
        for name, values in arrays().items()
        if name.endswith("_features")
    }


def given(cache: Any, content: dict[str, Any]) -> None:
    """Compare what a reader gets of a cache with the file's arrays, bit for bit."""
    features = cache.feature_set()
    for split, rows in features.listing.splits.items():
        stored = features.rows("global", rows).numpy()
        expected = content[f"{split.replace('@', '')}_features"]
        assert stored.dtype == expected.dtype
        np.testing.assert_array_equal(stored, expected)
    text = features.text.template_rows[:, 0].numpy()
    np.testing.assert_array_equal(text, content["text_features"])


def test_float32_stays_float32(tmp_path: Path) -> None:
    content = wide(np.float32)
    cache = bring(tmp_path, **content)
    given(cache, content)
    assert verify(cache.path, full=True).is_sound
    rows = cache.feature_set().unit("global", np.array([0]))
    exact = content["train1_features"][0] / np.linalg.norm(content["train1_features"][0])
    np.testing.assert_allclose(rows[0].numpy(), exact, rtol=1e-6)


def test_values_beyond_float16_are_kept(tmp_path: Path) -> None:
    content = wide(np.float32, scale=1e6)
    given(bring(tmp_path, **content), content)


def test_big_endian_and_float16_stay_what_they_are(tmp_path: Path) -> None:
    content = wide(np.float32)
    cache = bring(tmp_path, **{name: values.astype(">f4") for name, values in content.items()})
    given(cache, content)
    half = bring(tmp_path)
    assert half.shards["global"][0].facts.dtype == "float16"
    assert half.key.numerics == 1  # what earlier versions wrote, to the byte


def test_texts_keep_their_digits_beside_float16_rows(tmp_path: Path) -> None:
    text = wide(np.float32)["text_features"]
    cache = bring(tmp_path, text_features=text)
    bank = cache.feature_set().text
    np.testing.assert_array_equal(bank.template_rows[:, 0].numpy(), text)
    assert cache.shards["global"][0].facts.dtype == "float16"
    assert cache.key.numerics == 2  # an earlier version rounded these texts


def test_the_widest_array_decides_for_all_rows(tmp_path: Path) -> None:
    content = arrays(test_features=wide(np.float32)["test_features"])
    cache = bring(tmp_path, test_features=content["test_features"])
    features = cache.feature_set()
    for split, rows in features.listing.splits.items():
        expected = content[f"{split.replace('@', '')}_features"].astype(np.float32)
        np.testing.assert_array_equal(features.rows("global", rows).numpy(), expected)


def test_float64_is_taken_and_what_was_rounded_is_said(tmp_path: Path) -> None:
    content = wide(np.float64)
    cache = bring(tmp_path, **content)
    given(cache, {name: values.astype(np.float32) for name, values in content.items()})
    (note,) = [n for n in cache.listing().notes if "float64" in n]
    assert "train1_features, train4_features, val_features, test_features, text_features" in note
    moved = max(
        np.linalg.norm(v - v.astype(np.float32), axis=1).max() / np.linalg.norm(v, axis=1).min()
        for v in content.values()
    )
    said = float(note.split("at most ")[1].split(" ")[0])
    assert 0 < said <= 1.1 * moved < 1e-6
    assert not any("float64" in n for n in bring(tmp_path).listing().notes)


def earlier(root: Path, content: dict[str, Any], sha256: str) -> Any:
    """Make the cache of a float32 file as versions did that rounded to float16."""
    from featcache.importers.storing import GLOBAL
    from featcache.keys import FeatureKey
    from featcache.store.cache import Cache

    key = FeatureKey(
        architecture="ViT-B/32",
        weights="unknown",
        activation="unknown",
        image_size=0,
        preprocessing=f"imported:{sha256[:12]}",
        norms="raw",
        numerics=1,
    )
    made = read_table(root.parent / "features.npz")
    cache = Cache.create(root, "insects", "ViT-B/32", key)
    with cache.lock():
        cache.put_listing(made.listing("insects"))
        cache.append(GLOBAL, np.arange(24), made.rows.astype(np.float16), {}, {})
        cache.finish(components=["global"], images=24, seconds=0.0, complete=True, when=1.0)
    return cache


def test_over_an_earlier_rounded_import_the_digits_come_beside_it(tmp_path: Path) -> None:
    content = wide(np.float32)
    path = save(tmp_path / "features.npz", arrays(**content))
    old = earlier(tmp_path / "root", content, read_table(path).sha256)
    before = files(old.path)
    said: list[Part] = []
    new = import_npz(path, tmp_path / "root", "insects", "ViT-B/32", say=said.append)
    assert new.path != old.path
    given(new, content)
    assert find_cache(tmp_path / "root", "insects").path == new.path
    assert files(old.path) == before  # what was trained on it can be trained again
    rounded = find_cache(tmp_path / "root", "insects", key=old.key.digest()).feature_set()
    stored = rounded.rows("global", rounded.listing.rows("test")).numpy()
    np.testing.assert_array_equal(stored, content["test_features"].astype(np.float16))
    (hint,) = [text for m in said if "float16" in (text := in_python([m]))]
    assert f"path='{old.path}')" in hint
    assert [t for t in again(tmp_path) if "float16" in t] == [hint]
    remove(tmp_path / "root", old.path)
    assert not [t for t in again(tmp_path) if "float16" in t]


def test_one_component_never_mixes_types(tmp_path: Path) -> None:
    from featcache.keys import ComponentKey

    cache = bring(tmp_path)
    for shard in (cache.path / "global").glob("*.h5"):
        cache.drop("global", shard.name)
    half, single = ComponentKey(kind="global"), ComponentKey(kind="global", dtype="float32")
    cache.append(half, np.array([0]), unit(1), {}, {})
    with pytest.raises(CacheError, match=r"float16.*float32"):
        cache.append(single, np.array([1]), unit(1).astype(np.float32), {}, {})
    assert cache.feature_set().rows("global", np.array([0])).shape == (1, 6)


def test_features_of_another_width_than_the_backbone_has_are_said(tmp_path: Path) -> None:
    path = save(tmp_path / "features.npz", arrays())
    said: list[Part] = []
    import_npz(path, tmp_path / "root", "insects", "ViT-B/32", say=said.append)
    (text,) = [in_python([message]) for message in said]
    assert "wide, but features of ViT-B/32 are 512 wide" in text
    said.clear()
    import_npz(path, tmp_path / "root", "beetles", "a backbone of ours", say=said.append)
    assert said == []
