import io
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
from featcache.keys import NUMERICS
from featcache.store.library import caches, find_cache
from featcache.store.verify import verify

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
    assert find_cache(tmp_path / "root", "insects").path == other.path


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
    with pytest.raises(MissingComponentError, match="featcache import npz FILE --name insects"):
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


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train4_features": unit(12, 8)}, r"'train1_features'.* 6 wide and 'train4_features' 8"),
    ({"text_features": unit(3, 8)}, r"'text_features' 8: they come from different models"),
    ({"text_features": unit(2)}, "one row for each of the 3 classes"),
    ({"val_features": np.full((4, 6), np.nan, np.float16)}, "Row 0 of 'val_features'"),
    ({"val_features": np.full((4, 6), 1e6, np.float32)}, "too large for float16"),
    ({"val_features": np.zeros((4, 6), np.float16)}, "is zero"),
    ({"val_features": unit(4).astype(np.float64)}, "float16 or float32"),
    ({"val_features": np.ones((4, 6), np.int64)}, "float16 or float32"),
    ({"val_features": np.zeros((0, 6), np.float16)}, "no rows"),
    ({"val_features": unit(4)[:, :, None]}, "float16 or float32"),
    ({"val_labels": np.array([0, 1, 2])}, r"'val_labels'.*integers \[4\]"),
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
def test_the_real_mix_of_two_models_is_refused(tmp_path: Path) -> None:
    with np.load(REAL / "dtd_vitb32.npz") as file:
        content = {name: file[name] for name in file.files}
    content["train16_features"] = unit(16 * 47, 1024)
    content["train16_labels"] = np.repeat(np.arange(47), 16)
    with pytest.raises(ImportedFileError, match=r"512 wide and 'train16_features' 1024"):
        import_npz(save(tmp_path / "dtd.npz", content), tmp_path / "root", "dtd", "ViT-B/32")


@pytest.mark.parametrize("bad", ["", " ", "a\nb", "V\x1b[31mX"])
def test_names_that_cannot_be_read_are_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        import_npz(tmp_path / "none.npz", tmp_path, bad, "ViT-B/32")
    with pytest.raises(UsageError, match="--backbone"):
        import_npz(tmp_path / "none.npz", tmp_path, "toy", bad)


def test_another_width_under_the_same_name_is_refused(tmp_path: Path) -> None:
    first = bring(tmp_path)
    wide = {k: unit(len(v), d=9) for k, v in arrays().items() if k.endswith("_features")}
    with pytest.raises(ImportedFileError, match=r"9 wide.*'insects'.*6.*--name"):
        bring(tmp_path, **wide)
    assert [s.path for s in caches(tmp_path / "root")] == [first.path]


def test_no_rows_and_wrong_types_have_cures_of_their_own(tmp_path: Path) -> None:
    empty = np.zeros((0, 6), np.float16)
    with pytest.raises(ImportedFileError, match=r"'train4_features'.*no rows"):
        bring(tmp_path, train4_features=empty, train4_labels=np.zeros(0, int))
    with pytest.raises(ImportedFileError, match=r"float64.*astype"):
        bring(tmp_path, val_features=np.ones((4, 6)))
