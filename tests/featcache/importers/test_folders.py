"""Folders of arrays, of CoOp's, of CLIP_benchmark and of cross_modal_adaptation that do not fit."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import ImportedFileError
from featcache.importers.clip_benchmark import read_clip_benchmark
from featcache.importers.contents import digest_of
from featcache.importers.cross_modal import read_cross_modal
from featcache.importers.lpclip import read_lpclip
from featcache.importers.npy import read_npy_folder
from featcache.importers.numpy_files import read_npy, read_raw
from featcache.importers.widths import width_of
from tests.featcache.importers import miniatures
from tests.featcache.importers.miniatures import rows, save


def test_an_npy_header_is_compared_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((3, 4), np.float32))
    whole = path.read_bytes()
    for lie, why in (
        (whole.replace(b"(3, 4)", b"(3, 5)"), r"says shape \[3, 5\] of float32 but has 48 bytes"),
        (whole.replace(b"(3, 4), }", b"(9**9,4) }"), r"not a sound \.npy"),
        (whole.replace(b"(3, 4)", b"(-3,4)"), r"x\.npy"),
        (whole[:-1], "has 47 bytes"),
        (whole + b"\0", "has 49 bytes"),
        (whole[:40], r"not a sound \.npy"),
        (b"", r"not a sound \.npy"),
    ):
        path.write_bytes(lie)
        with pytest.raises(ImportedFileError, match=why):
            read_npy(path)


def test_pickled_arrays_are_refused_unread(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'touched'}",)

    np.save(tmp_path / "x.npy", np.array([Harm()], dtype=object))
    with pytest.raises(ImportedFileError, match="Python objects"):
        read_npy(tmp_path / "x.npy")
    assert not (tmp_path / "touched").exists()
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert (tmp_path / "touched").exists()  # so the test would notice


def test_fortran_order_is_kept(tmp_path: Path) -> None:
    wanted = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", np.asfortranarray(wanted))
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), wanted)


def test_raw_numbers_need_a_type_and_a_width(tmp_path: Path) -> None:
    wanted = rows(5, 0)
    wanted.tofile(tmp_path / "x.bin")
    np.testing.assert_array_equal(read_raw(tmp_path / "x.bin", "float16", 24), wanted)
    given: list[Any] = [(None, 24), ("float16", None), ("float16", 0), ("int8", 24), ("object", 24)]
    for dtype, dim in given:
        with pytest.raises(ImportedFileError, match=r"dtype='float16' and dim=512"):
            read_raw(tmp_path / "x.bin", dtype, dim)
    with pytest.raises(ImportedFileError, match="240 bytes, which are no rows of 25 numbers"):
        read_raw(tmp_path / "x.bin", "float16", 25)


def test_larger_files_than_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniatures.npy(tmp_path / "n")
    monkeypatch.setenv("FEATCACHE_MAX_ARRAYS", "600")
    with pytest.raises(ImportedFileError, match=r"together.*FEATCACHE_MAX_ARRAYS"):
        read_npy_folder(tmp_path / "n", dtype="float16", dim=24)
    with pytest.raises(ImportedFileError, match=r"FEATCACHE_MAX_ARRAYS raises it"):
        read_npy(tmp_path / "n" / "train_features.npy")


def test_one_array_in_two_files_is_refused(tmp_path: Path) -> None:
    miniatures.npy(tmp_path / "n")
    np.save(tmp_path / "n" / "test_features.npy", rows(9, 2))
    with pytest.raises(ImportedFileError, match=r"test_features\.mmap and test_features\.npy"):
        read_npy_folder(tmp_path / "n", dtype="float16", dim=24)


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    miniatures.npy(tmp_path / "n")
    (tmp_path / "n" / "notes.txt").write_text("mine")
    np.save(tmp_path / "n" / "other.npy", np.zeros(3))
    found = read_npy_folder(tmp_path / "n", dtype="float16", dim=24)
    assert {name.split("_")[0] for name in found.arrays} == {"train", "val", "test"}
    with pytest.raises(ImportedFileError, match="no file of features"):
        read_npy_folder(tmp_path)


def test_an_unfinished_run_of_clip_benchmark_is_refused(tmp_path: Path) -> None:
    miniatures.clip_benchmark(tmp_path)
    assert "1 parts of an unfinished run" in read_clip_benchmark(tmp_path).notes[0]
    (tmp_path / "targets_test.pt").unlink()
    with pytest.raises(ImportedFileError, match=r"features_test\.pt and no targets_test\.pt"):
        read_clip_benchmark(tmp_path)
    (tmp_path / "features_train.pt").unlink()
    with pytest.raises(ImportedFileError, match=r"targets_train\.pt and no features_train\.pt"):
        read_clip_benchmark(tmp_path)
    (tmp_path / "targets_train.pt").unlink()
    (tmp_path / "features_test.pt").unlink()
    with pytest.raises(ImportedFileError, match="nothing can be trained"):
        read_clip_benchmark(tmp_path)


def test_other_arrays_than_lpclips_are_refused(tmp_path: Path) -> None:
    miniatures.lpclip(tmp_path / "l")
    np.savez(tmp_path / "l" / "val.npz", features=rows(3, 0))
    with pytest.raises(ImportedFileError, match=r"val\.npz should hold feature_list.*got features"):
        read_lpclip(tmp_path / "l")
    (tmp_path / "l" / "train.npz").unlink()
    with pytest.raises(ImportedFileError, match=r"no train\.npz"):
        read_lpclip(tmp_path / "l")


def test_a_seed_of_cross_modal_that_is_not_there_is_named(tmp_path: Path) -> None:
    miniatures.cross_modal(tmp_path)
    view = tmp_path / "RN50_0" / "eurosat" / "none"
    with pytest.raises(ImportedFileError, match=r"shot_<K>-seed_7.*1, 2.*seed"):
        read_cross_modal(view, seed=7)
    (view.parent / "test.pth").unlink()
    with pytest.raises(ImportedFileError, match=r"no test\.pth"):
        read_cross_modal(view)
    (view.parent / "test.pth").symlink_to(view / "shot_1-seed_1.pth")
    with pytest.raises(ImportedFileError, match="features, labels, paths, got one with train, val"):
        read_cross_modal(view)


def test_activations_of_an_inner_layer_are_refused(tmp_path: Path) -> None:
    miniatures.cross_modal(tmp_path)
    (tmp_path / "RN50_0").rename(tmp_path / "RN50_1")
    with pytest.raises(ImportedFileError, match=r"layer 1 of 'RN50_1'"):
        read_cross_modal(tmp_path / "RN50_1" / "eurosat" / "none")


@pytest.mark.parametrize("paths", ["a", [1, 2], ["x" * 5000], None])
def test_paths_that_are_no_texts_are_refused(tmp_path: Path, paths: Any) -> None:
    miniatures.cross_modal(tmp_path)
    view = tmp_path / "RN50_0" / "eurosat" / "none"
    test = {"features": torch.ones(2, 24), "labels": torch.tensor([0, 1]), "paths": paths}
    save(view.parent / "test.pth", test)
    with pytest.raises(ImportedFileError, match=r"test\.pth should hold"):
        read_cross_modal(view)


def test_the_digest_tells_type_shape_and_name(tmp_path: Path) -> None:
    base = np.arange(6, dtype=np.float32)
    others: tuple[dict[str, Any], ...] = (
        {"a": base.reshape(2, 3)}, {"b": base}, {"a": base.astype(np.float64)}, {"a": base + 1},
        {"a": base.view(np.int32)}, {},
    )  # fmt: skip
    digests = {digest_of({"a": base}), *(digest_of(arrays) for arrays in others)}
    assert len(digests) == 7
    assert digest_of({"a": np.asfortranarray(base.reshape(2, 3))}) == digest_of(others[0])


def test_widths_of_known_backbones() -> None:
    from featcache.backbones.names import OPENAI, choose

    for name in OPENAI:
        assert width_of(name) == choose(name, "random").config["embed_dim"]
    assert width_of("../../../etc/passwd") is None
