"""Files that are refused: what does not fit, bombs, pickles, damage."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import ImportedFileError, UsageError
from featcache.importers.arrays import read_arrays
from featcache.importers.npz import import_npz
from featcache.store.library import caches
from tests.featcache.importers.npz_files import arrays, bring, save, unit

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
