"""Tip-Adapter's and TransCLIP's folders: which axis is which, and files that do not fit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import ImportedFileError
from featcache.importers.features import import_features
from featcache.importers.tip_adapter import read_tip_adapter
from tests.featcache.importers.miniatures import rows, save, tensor, tip_adapter

REAL = Path(__file__).parents[4] / "shared" / "data" / "raw_caches"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real caches in {REAL}")


def bring(folder: Path, root: Path, backbone: str = "my model", **more: Any) -> Any:
    return import_features(lambda: read_tip_adapter(folder), root, "toys", backbone, **more)


def one_hot(count: int, classes: int) -> Any:
    return torch.nn.functional.one_hot(torch.arange(count) % classes, classes).half()


@pytest.mark.parametrize("layout", ["columns", "rows", "views"])
def test_the_axis_of_the_shots_is_read_off_the_values(tmp_path: Path, layout: str) -> None:
    made = tip_adapter(tmp_path / "c", layout)
    found = read_tip_adapter(tmp_path / "c")
    for k in (1, 2):
        wanted = made.rows[f"train@{k}"]
        np.testing.assert_allclose(found.arrays[f"train{k}_features"], wanted, atol=1e-3)


def test_keys_as_wide_as_long_are_refused(tmp_path: Path) -> None:
    tip_adapter(tmp_path, width=6)  # 3 classes x 2 shots
    with pytest.raises(ImportedFileError, match=r"keys_2shots\.pt is 6 x 6.*rows from columns"):
        read_tip_adapter(tmp_path)
    for name in ("keys_2shots.pt", "values_2shots.pt"):
        (tmp_path / name).unlink()
    assert read_tip_adapter(tmp_path).arrays["train1_features"].shape == (3, 6)


def test_views_are_averaged_to_unit_rows(tmp_path: Path) -> None:
    tip_adapter(tmp_path)
    views = np.stack([rows(3, seed, dtype=np.float32) for seed in (1, 2, 3)])
    save(tmp_path / "keys_1shots.pt", tensor(views))
    found = read_tip_adapter(tmp_path)
    mean = views.mean(0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(found.arrays["train1_features"], mean, atol=1e-6)
    assert found.notes == ("keys_1shots.pt has 3 views of each image; their mean is stored.",)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("values_2shots.pt", one_hot(5, 3), r"keys_2shots.*24, 6.*values_2shots.*5 rows"),
        ("values_2shots.pt", one_hot(6, 4), r"over 3 classes.*values_2shots\.pt over 4"),
        ("values_2shots.pt", 2 * one_hot(6, 3), r"values_2shots\.pt should hold one-hot"),
        ("values_2shots.pt", torch.zeros(6, 3), r"values_2shots\.pt should hold one-hot"),
        ("values_2shots.pt", torch.arange(6), r"values_2shots\.pt should hold one-hot"),
        ("keys_2shots.pt", {"a": torch.zeros(2)}, r"keys_2shots\.pt should hold a tensor"),
        ("keys_2shots.pt", torch.zeros(24, 6), r"zero, not finite"),
        ("keys_2shots.pt", torch.full((24, 6), torch.nan), r"keys_2shots\.pt is zero, not finite"),
        ("keys_2shots.pt", torch.ones(24, 6, dtype=torch.int64), r"keys|train2_features"),
        ("test_l.pt", torch.arange(9), r"test_l\.pt has labels up to 8.*3 classes"),
        ("test_l.pt", torch.zeros(8, dtype=torch.int64), r"test_l\.pt has 8 labels.*9 rows"),
        ("test_l.pt", torch.zeros(9), r"test_l\.pt should be integers"),
        ("test_f.pt", torch.ones(9, 25).half(), r"24 wide are keys_1.*25 wide are test_f\.pt"),
        ("test_f.pt", torch.ones(9), r"test_f\.pt should be float16|test_features"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, name: str, value: Any, why: str) -> None:
    tip_adapter(tmp_path / "c")
    save(tmp_path / "c" / name, value)
    with pytest.raises(ImportedFileError, match=why):
        bring(tmp_path / "c", tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("name", ["values_1shots.pt", "test_l.pt"])
def test_a_missing_partner_is_named(tmp_path: Path, name: str) -> None:
    tip_adapter(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ImportedFileError, match=name):
        read_tip_adapter(tmp_path)


def test_a_folder_without_keys_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportedFileError, match="no keys_<K>shots"):
        read_tip_adapter(tmp_path)
    with pytest.raises(ImportedFileError, match="is not there"):
        read_tip_adapter(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImportedFileError, match="not a folder"):
        read_tip_adapter(tmp_path / "file")


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    tip_adapter(tmp_path / "c")
    inside = tmp_path / "c" / "test_f.pt"
    shutil.move(inside, tmp_path / "secret.pt")
    inside.symlink_to(tmp_path / "secret.pt")
    with pytest.raises(ImportedFileError, match=r"test_f\.pt is a link that leads out"):
        read_tip_adapter(tmp_path / "c")
    inside.unlink()
    shutil.move(tmp_path / "secret.pt", tmp_path / "c" / "there.pt")
    inside.symlink_to("there.pt")
    assert "test_features" in read_tip_adapter(tmp_path / "c").arrays


def test_another_width_than_the_backbones_is_refused(tmp_path: Path) -> None:
    tip_adapter(tmp_path / "c", width=1024)
    with pytest.raises(
        ImportedFileError, match=r"1024 wide, and features of ViT-B/32 are 512 wide.*of RN50"
    ):
        bring(tmp_path / "c", tmp_path / "root", "ViT-B/32")
    assert bring(tmp_path / "c", tmp_path / "root", "RN50").key.architecture == "RN50"


@pytest.mark.parametrize("share", [1, 4, 9])
def test_training_rows_that_are_the_tests_are_refused(tmp_path: Path, share: int) -> None:
    made = tip_adapter(tmp_path / "c")
    for k in (1, 2):
        keys = made.rows[f"train@{k}"].copy()
        keys[:share] = made.rows["test"][: len(keys[:share])]
        save(tmp_path / "c" / f"keys_{k}shots.pt", tensor(keys).t())
    if share == 1:
        notes = bring(tmp_path / "c", tmp_path / "root").listing().notes
        assert "1 of 6 rows of train2_features are also in the test split." in notes
        return
    with pytest.raises(ImportedFileError, match=r"3 of 3 training rows of .*keys_1shots\.pt"):
        bring(tmp_path / "c", tmp_path / "root")


@real
def test_the_real_mix_of_two_backbones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ImportedFileError,
        match=r"512 wide are keys_1shots\.pt, val_f\.pt, test_f\.pt; 1024 wide are keys_2shots\.pt",
    ):
        bring(REAL / "dtd", tmp_path, "ViT-B/32")


@real
def test_the_real_cache_of_caltech101_is_what_its_authors_read(tmp_path: Path) -> None:
    cache = bring(REAL / "caltech101", tmp_path, "ViT-B/32")
    features = cache.feature_set()
    counts = {split: len(index) for split, index in features.listing.splits.items()}
    shots = {f"train@{k}": 100 * k for k in (1, 2, 4, 8, 16)}
    assert counts == {**shots, "val": 1649, "test": 2465}
    load: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    for k in (1, 16):
        keys = torch.load(REAL / "caltech101" / f"keys_{k}shots.pt", **load)
        values = torch.load(REAL / "caltech101" / f"values_{k}shots.pt", **load)
        index = features.listing.rows(f"train@{k}")
        assert torch.equal(features.rows("global", index), keys.t())
        assert features.labels[index].tolist() == values.argmax(1).tolist()
    x = features.unit("global", features.listing.rows("test"))
    support = features.listing.rows("train@16")
    # Tip-Adapter's affinity alone, as its released code computes it from these files.
    keys = torch.load(REAL / "caltech101" / "keys_16shots.pt", **load).float()
    values = torch.load(REAL / "caltech101" / "values_16shots.pt", **load).float()
    test = torch.load(REAL / "caltech101" / "test_f.pt", **load).float()
    theirs = (torch.exp(-5.5 * (1 - test @ keys)) @ values).argmax(1)
    affinity = torch.exp(-5.5 * (1 - x @ features.unit("global", support).t()))
    ours = (affinity @ torch.eye(100)[torch.from_numpy(features.labels[support])]).argmax(1)
    assert (ours == theirs).float().mean() > 0.998  # rows are normalised again here
    given = torch.load(REAL / "caltech101" / "test_l.pt", **load)
    assert features.labels[features.listing.rows("test")].tolist() == given.tolist()
