import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CacheError, ImportedFileError, MissingComponentError, UsageError
from featcache.importers.arrays import read_arrays
from featcache.importers.npz import import_npz
from featcache.importers.table import read_table
from featcache.keys import NUMERICS
from featcache.store.library import caches, find_cache
from featcache.store.removal import remove
from featcache.store.repair.verify import verify

REAL = Path(__file__).parents[4] / "shared" / "data" / "features"


def unit(n: int, d: int = 6, seed: int = 0) -> Any:
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def arrays(**changes: Any) -> dict[str, Any]:
    made = {
        "classnames": np.array(["ant", "bee", "wasp"]),
        "text_features": unit(3, seed=9),
        "train1_features": unit(3, seed=1),
        "train1_labels": np.array([0, 1, 2]),
        "train4_features": unit(12, seed=2),
        "train4_labels": np.repeat([0, 1, 2], 4),
        "val_features": unit(4, seed=3),
        "val_labels": np.array([0, 1, 2, 2]),
        "test_features": unit(5, seed=4),
        "test_labels": np.array([0, 0, 1, 2, 2]),
        "test_paths": np.array(["a.jpg", "b.jpg", "a.jpg", "c.jpg", "d.jpg"]),
    }
    return {k: v for k, v in {**made, **changes}.items() if v is not None}


def save(path: Path, content: dict[str, Any]) -> Path:
    np.savez(path, **content)
    return path


def bring(tmp_path: Path, **changes: Any) -> Any:
    path = save(tmp_path / "features.npz", arrays(**changes))
    return import_npz(path, tmp_path / "root", "insects", "ViT-B/32")


def test_every_array_finds_its_place(tmp_path: Path) -> None:
    cache = bring(tmp_path)
    features = cache.feature_set()
    listing = features.listing
    assert list(listing.splits) == ["train@1", "train@4", "val", "test"]
    assert [len(r) for r in listing.splits.values()] == [3, 12, 4, 5]
    for split, prefix in (("train@4", "train4"), ("test", "test")):
        rows = listing.rows(split)
        stored = features.rows("global", rows).numpy()
        np.testing.assert_array_equal(stored, arrays()[f"{prefix}_features"])
        np.testing.assert_array_equal(listing.labels[rows], arrays()[f"{prefix}_labels"])
    assert listing.draws == "stored"
    assert listing.classes == ("ant", "bee", "wasp")
    assert [listing.ids[r] for r in listing.rows("test")] == [
        "a.jpg",
        "b.jpg",
        "a.jpg#2",
        "c.jpg",
        "d.jpg",
    ]
    assert listing.ids[0] == "train@1/0"
    assert (cache.key.weights, cache.key.norms) == ("unknown", "unit")
    text = features.text
    assert text is not None
    assert text.template_rows is not None
    assert text.template_rows.shape == (3, 1, 6)
    assert text.logit_scale == 100.0
    assert torch.allclose(text.anchors(), torch.from_numpy(unit(3, seed=9)).float(), atol=1e-3)
    assert verify(cache.path, full=True).is_sound


def test_a_second_import_writes_nothing_and_other_content_is_another_cache(tmp_path: Path) -> None:
    first = bring(tmp_path)
    before = (first.path / "manifest.jsonl").read_bytes()
    assert bring(tmp_path).path == first.path
    assert (first.path / "manifest.jsonl").read_bytes() == before
    other = bring(tmp_path, val_labels=np.array([0, 1, 2, 1]))
    assert other.path != first.path
    assert len(caches(tmp_path / "root")) == 2
    key = other.key.digest()
    assert find_cache(tmp_path / "root", "insects", key=key).path == other.path
    with pytest.raises(UsageError, match=f"key='{key}' .file features.npz, 2"):
        find_cache(tmp_path / "root", "insects")


def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from featcache.importers import npz
    from featcache.store.cache import Cache

    monkeypatch.setattr(npz, "SHARD_ROWS", 8)
    real, calls = Cache.append, [0]

    def append(self: Cache, *given: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Cache, "append", append)
        with pytest.raises(KeyboardInterrupt):
            bring(tmp_path)
    cache = bring(tmp_path)
    assert [line.rows for line in cache.shards["global"]] == [((0, 8),), ((8, 16),), ((16, 24),)]
    assert len(cache.passes) == 1


def flip(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def again(tmp_path: Path) -> list[str]:
    said: list[str] = []
    import_npz(tmp_path / "features.npz", tmp_path / "root", "insects", "ViT-B/32", say=said.append)
    return said


def files(folder: Path) -> dict[str, bytes]:
    """Return every shard and text by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.h5")}


def test_a_second_import_restores_exactly_what_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.importers.npz.SHARD_ROWS", 8)
    cache = bring(tmp_path)
    before = files(cache.path)
    first, second, third = sorted((cache.path / "global").glob("*.h5"))
    flip(first)
    third.unlink()
    assert again(tmp_path) == ["The stored features were damaged; restored 16 rows."]
    assert files(cache.path) == before
    flip(next(cache.path.glob("text.*/rows.h5")))
    flip(second)
    assert "restored 8 rows and the class texts" in again(tmp_path)[0]
    assert files(cache.path) == before
    assert verify(cache.path, full=True).is_sound
    assert "nothing was left to do" in again(tmp_path)[0]


@pytest.mark.parametrize("lost", ["listing", "key.json", "manifest.jsonl"])
def test_a_second_import_restores_what_belongs_to_the_rows(tmp_path: Path, lost: str) -> None:
    cache = bring(tmp_path)
    labels = cache.feature_set().labels.tolist()
    if lost == "listing":
        shutil.rmtree(cache.path / lost)
    else:
        flip(cache.path / lost)
    assert not verify(cache.path).is_sound
    again(tmp_path)
    assert verify(cache.path, full=True).is_sound
    assert find_cache(tmp_path / "root").feature_set().labels.tolist() == labels


def test_another_data_sets_folder_is_refused_before_it_is_touched(tmp_path: Path) -> None:
    """'two words' and 'two-words' share a folder."""
    source = save(tmp_path / "features.npz", arrays())
    root = tmp_path / "root"
    folder = import_npz(source, root, "two words", "ViT-B/32").path
    shard = next((folder / "global").glob("*.h5"))
    flip(shard)
    before = shard.read_bytes()
    with pytest.raises(CacheError, match="belongs to 'two words'"):
        import_npz(source, root, "two-words", "ViT-B/32")
    assert shard.read_bytes() == before


def test_our_own_numbers_do_not_name_what_others_computed(tmp_path: Path) -> None:
    """Raising NUMERICS must not make another folder of the same file."""
    source = save(tmp_path / "features.npz", arrays())
    cache = import_npz(source, tmp_path / "root", "insects", "ViT-B/32")
    assert cache.key.numerics == 1 != NUMERICS


def test_a_link_is_refused_and_left(tmp_path: Path) -> None:
    cache = bring(tmp_path)
    (shard,) = (cache.path / "global").glob("*.h5")
    shard.rename(tmp_path / "elsewhere.h5")
    shard.symlink_to(tmp_path / "elsewhere.h5")
    with pytest.raises(CacheError, match="symbolic link"):
        again(tmp_path)
    assert shard.is_symlink()


def test_what_is_lost_names_the_import(tmp_path: Path) -> None:
    cache = bring(tmp_path)
    (shard,) = (cache.path / "global").glob("*.h5")
    cache.drop("global", shard.name)
    bare = find_cache(tmp_path / "root").feature_set()
    rows = bare.usable("test")
    with pytest.raises(MissingComponentError, match=r"import_npz\(path=FILE, name='insects'"):
        bare.rows("global", rows)
    with pytest.raises(MissingComponentError, match="choose another method"):
        bare.rows("views.rrc50-10", rows)


def test_rows_that_are_not_unit_are_marked_raw(tmp_path: Path) -> None:
    cache = bring(tmp_path, train4_features=(unit(12) * 10).astype(np.float32))
    assert cache.key.norms == "raw"


def test_plain_train_rows_and_further_test_splits(tmp_path: Path) -> None:
    cache = bring(
        tmp_path,
        train1_features=None,
        train1_labels=None,
        train4_features=None,
        train4_labels=None,
        train_features=unit(6),
        train_labels=np.array([0, 0, 1, 1, 2, 2], dtype=np.uint8),
        sketch_features=unit(2),
        classnames=np.array(["missile", "bee", "missile"]),
    )
    listing = cache.listing()
    assert listing is not None
    assert list(listing.splits) == ["train", "val", "test", "sketch"]
    assert listing.classes == ("missile", "bee", "missile (2)")
    assert listing.labels[listing.rows("sketch")].tolist() == [-1, -1]
    assert any("sketch has no labels" in n for n in listing.notes)
    assert any("missile" in n for n in listing.notes)


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
    from featcache.importers.npz import GLOBAL
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
    said: list[str] = []
    new = import_npz(path, tmp_path / "root", "insects", "ViT-B/32", say=said.append)
    assert new.path != old.path
    given(new, content)
    assert find_cache(tmp_path / "root", "insects").path == new.path
    assert files(old.path) == before  # what was trained on it can be trained again
    rounded = find_cache(tmp_path / "root", "insects", key=old.key.digest()).feature_set()
    stored = rounded.rows("global", rounded.listing.rows("test")).numpy()
    np.testing.assert_array_equal(stored, content["test_features"].astype(np.float16))
    (hint,) = [text for text in said if "float16" in text]
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


def test_without_class_names_they_are_numbered(tmp_path: Path) -> None:
    listing = bring(tmp_path, classnames=None).listing()
    assert listing is not None
    assert listing.classes == ("class 0", "class 1", "class 2")
    assert any("numbered" in n for n in listing.notes)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train4_features": unit(12, 8)}, r"'train1_features'.* 6 wide and 'train4_features' 8"),
    ({"text_features": unit(3, 8)}, r"'text_features' 8: they come from different models"),
    ({"text_features": unit(2)}, "one row for each of the 3 classes"),
    ({"val_features": np.full((4, 6), np.nan, np.float16)}, "Row 0 of 'val_features'"),
    ({"val_features": np.full((4, 6), 1e30, np.float32)}, "Row 0 of 'val_features'.*too large"),
    ({"val_features": np.full((4, 6), 1e-30, np.float32)}, "Row 0 of 'val_features'.*too small"),
    ({"val_features": np.full((4, 6), 1e300)}, "Row 0 of 'val_features'"),
    ({"text_features": np.full((3, 6), 1e300)}, "Row 0 of 'text_features'"),
    ({"val_features": np.zeros((4, 6), np.float16)}, "is zero"),
    ({"val_features": unit(4).astype(np.longdouble)}, "float16, float32 or float64"),
    ({"val_features": np.ones((4, 6), np.int64)}, "float16, float32 or float64"),
    ({"val_features": np.zeros((0, 6), np.float16)}, "no rows"),
    ({"val_features": unit(4)[:, :, None]}, "float16, float32 or float64"),
    ({"val_labels": np.array([0, 1, 2])}, "'val_labels'.* has 3 labels, but .* has 4 rows"),
    ({"val_labels": np.eye(4, 3, dtype=int)}, r"integers \[4\].*\[4, 3\]. .*not one-hot rows"),
    ({"val_labels": np.zeros(4)}, r"integers \[4\], got float64 \[4\]. Save class indices, one"),
    ({"val_labels": np.array([0.0, 1, 2, 2])}, "integers"),
    ({"val_labels": np.array([0, 1, 2, 3])}, r"labels 0\.\.3, but there are 3 classes"),
    ({"val_labels": np.array([0, 1, 2, -1])}, r"labels -1\.\.2"),
    ({"train1_labels": None}, "no 'train1_labels'"),
    ({"classnames": np.array(["ant", "bee", " "])}, "no readable name for class 2"),
    ({"classnames": np.array(["ant", "b\x1bee", "wasp"])}, "no readable name for class 1"),
    ({"classnames": np.array([1, 2, 3])}, "'classnames'.*should be texts"),
    ({"test_paths": np.array(["a"])}, "1 entries for 5 rows"),
    ({"train_labels": np.array([1])}, "no 'train_features'"),
    ({"mystery": np.array([1])}, "'mystery' whose meaning is unknown"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda v: str(v)[:30])
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportedFileError, match=message):
        bring(tmp_path, **changes)
    assert not (tmp_path / "root").exists()


def test_files_without_train_or_without_queries_are_refused(tmp_path: Path) -> None:
    whole = arrays()
    for prefix, message in ((("train",), "no train_features"), (("val", "test"), "neither val")):
        part = {k: v for k, v in whole.items() if not k.startswith(prefix)}
        with pytest.raises(ImportedFileError, match=message):
            import_npz(save(tmp_path / "part.npz", part), tmp_path / "root", "x", "y")


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("unpickled",))


def test_pickles_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, allow_pickle=True, classnames=np.array([Bomb()], dtype=object))
    with pytest.raises(ImportedFileError, match="Python objects"):
        read_arrays(path)
    path.write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(ImportedFileError, match="not a sound"):
        read_arrays(path)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_bombs_are_refused_before_they_unpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "a.npz", {"a.npy": npy(np.zeros(1 << 16))})
    with pytest.raises(ImportedFileError, match=r"up to .* of 1000 bytes are read"):
        read_arrays(path, limit=1000)
    monkeypatch.setattr("featcache.importers.arrays.RATIO_FROM", 1 << 10)
    with pytest.raises(ImportedFileError, match="unpacks from"):
        read_arrays(path)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    good = npy(np.arange(5))
    huge = good.replace(b"(5,)", b"(5000000000000,)").replace(b" " * 12 + b"\n", b"\n")
    wrong = {
        "cut": {"a.npy": good[:-1]},
        "huge": {"a.npy": huge},
        "empty": {"a.npy": b""},
        "noise": {"a.npy": b"\x93NUMPY\x09\x09" + good},
        "no array": {"a.txt": b"hello"},
    }
    for name, members in wrong.items():
        with pytest.raises(ImportedFileError):
            read_arrays(archive(tmp_path / f"{name}.npz", members))
    with pytest.raises(ImportedFileError, match="There is no file"):
        read_arrays(tmp_path / "missing.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ImportedFileError, match="is no regular file"):
        read_arrays(tmp_path / "pipe.npz")


def test_flipped_bytes_never_leave_the_tree_of_errors(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", arrays())
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(data)
        for position in random.integers(0, len(data), 3):
            broken[position] = random.integers(0, 256)
        path.write_bytes(broken)
        try:
            import_npz(path, tmp_path / "root", "x", "y")
        except ImportedFileError:
            continue


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real features in {REAL}")
@pytest.mark.parametrize("path", sorted(REAL.glob("*.npz")), ids=lambda p: p.stem)
def test_real_files(tmp_path: Path, path: Path) -> None:
    cache = import_npz(path, tmp_path, path.stem, "ViT-B/32")
    features = cache.feature_set()
    with np.load(path) as file:
        for split, rows in features.listing.splits.items():
            prefix = split.replace("@", "")
            np.testing.assert_array_equal(
                features.rows("global", rows).numpy(), file[f"{prefix}_features"]
            )
            np.testing.assert_array_equal(features.labels[rows], file[f"{prefix}_labels"])
        assert (features.text is not None) == ("text_features" in file.files)
    if path.stem == "caltech50_vitb32" and features.text is not None:
        rows = features.usable("test")
        guess = (features.unit("global", rows) @ features.text.anchors().T).argmax(1).numpy()
        assert (guess == features.labels[rows]).mean() == pytest.approx(0.965, abs=1e-3)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real features in {REAL}")
@pytest.mark.parametrize("name", ["caltech50", "imagenet256"])
def test_imported_float32_gives_the_golden_logits(tmp_path: Path, name: str) -> None:
    """The released code normalises in float32; saved so and imported, nothing may be lost."""
    with np.load(REAL / f"{name}_vitb32.npz") as file:
        content = {key: file[key] for key in file.files}
    for key in [k for k in content if k.endswith("_features")]:
        rows = torch.from_numpy(content[key]).float()
        content[key] = torch.nn.functional.normalize(rows, dim=-1).numpy()
    features = import_npz(
        save(tmp_path / "float32.npz", content), tmp_path / "root", name, "ViT-B/32"
    ).feature_set()
    x = features.unit("global", features.listing.rows("test"))
    assert features.text is not None
    golden = np.load(REAL.parent / "golden" / f"zeroshot_{name}.npz")["logits"]
    assert np.abs(100 * (x @ features.text.anchors().T).numpy() - golden).max() < 1e-4


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real features in {REAL}")
def test_the_real_mix_of_two_models_is_refused(tmp_path: Path) -> None:
    with np.load(REAL / "dtd_vitb32.npz") as file:
        content = {name: file[name] for name in file.files}
    content["train16_features"] = unit(16 * 47, 1024)
    content["train16_labels"] = np.repeat(np.arange(47), 16)
    with pytest.raises(ImportedFileError, match=r"512 wide and 'train16_features' 1024"):
        import_npz(save(tmp_path / "dtd.npz", content), tmp_path / "root", "dtd", "ViT-B/32")


@pytest.mark.parametrize("bad", ["", " ", "a\nb", "V\x1b[31mX"])
def test_names_that_cannot_be_read_are_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UsageError, match="need a name of"):
        import_npz(tmp_path / "none.npz", tmp_path, bad, "ViT-B/32")
    with pytest.raises(UsageError, match="need a backbone of"):
        import_npz(tmp_path / "none.npz", tmp_path, "toy", bad)


def test_another_width_under_the_same_name_is_refused(tmp_path: Path) -> None:
    first = bring(tmp_path)
    wide = {k: unit(len(v), d=9) for k, v in arrays().items() if k.endswith("_features")}
    with pytest.raises(ImportedFileError, match=r"9 wide.*'insects'.*6.*another name or backbone"):
        bring(tmp_path, **wide)
    assert [s.path for s in caches(tmp_path / "root")] == [first.path]


def test_no_rows_and_wrong_types_have_cures_of_their_own(tmp_path: Path) -> None:
    empty = np.zeros((0, 6), np.float16)
    with pytest.raises(ImportedFileError, match=r"'train4_features'.*no rows"):
        bring(tmp_path, train4_features=empty, train4_labels=np.zeros(0, int))
    with pytest.raises(ImportedFileError, match=r"complex128.*astype"):
        bring(tmp_path, val_features=np.ones((4, 6), complex))


def test_an_import_adds_the_checksums_of_rows_that_are_missing(tmp_path: Path) -> None:
    cache = bring(tmp_path)
    (beside,) = cache.path.glob("global*/*.sums")
    data = beside.read_bytes()
    beside.unlink()
    assert again(tmp_path) == ["Imported before, and sound: nothing was left to do."]
    assert beside.read_bytes() == data
