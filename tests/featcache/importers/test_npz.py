import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CacheError, ImportedFileError, MissingComponentError, UsageError
from featcache.importers.npz import import_npz
from featcache.keys import NUMERICS
from featcache.store.library import caches, find_cache
from featcache.store.repair.verify import verify
from tests.featcache.importers.npz_files import again, arrays, bring, files, save, unit

REAL = Path(__file__).parents[4] / "shared" / "data" / "features"


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
    from featcache.importers import storing
    from featcache.store.cache import Cache

    monkeypatch.setattr(storing, "SHARD_ROWS", 8)
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


def test_a_second_import_restores_exactly_what_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.importers.storing.SHARD_ROWS", 8)
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


def test_without_class_names_they_are_numbered(tmp_path: Path) -> None:
    listing = bring(tmp_path, classnames=None).listing()
    assert listing is not None
    assert listing.classes == ("class 0", "class 1", "class 2")
    assert any("numbered" in n for n in listing.notes)


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


def test_an_import_adds_the_checksums_of_rows_that_are_missing(tmp_path: Path) -> None:
    cache = bring(tmp_path)
    (beside,) = cache.path.glob("global*/*.sums")
    data = beside.read_bytes()
    beside.unlink()
    assert again(tmp_path) == ["Imported before, and sound: nothing was left to do."]
    assert beside.read_bytes() == data
