"""Parquet tables and clip-retrieval's parts: which column is which, and files that bring harm."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import ImportedFileError, UsageError
from featcache.importers.clip_retrieval import folders_by_split, read_clip_retrieval
from featcache.importers.features import import_features
from featcache.importers.parquet import Columns, read_parquet
from featcache.importers.parquet_files import bounded
from tests.featcache.importers.miniatures import clip_retrieval, labels, parquet, rows

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(path: Path, count: int = 6, **changes: Any) -> Path:
    columns = {
        "embedding": rows(count, count, dtype=np.float32).tolist(),
        "label": labels(count),
        "split": ["train", "test"] * (count // 2),
    }
    columns = {k: v for k, v in {**columns, **changes}.items() if v is not None}
    pq.write_table(pa.table(columns), path)
    return path


def test_a_column_tells_the_splits(tmp_path: Path) -> None:
    found = read_parquet([str(table(tmp_path / "t.parquet"))])
    wanted = rows(6, 6, dtype=np.float32)
    np.testing.assert_array_equal(found.arrays["train_features"], wanted[::2])
    np.testing.assert_array_equal(found.arrays["test_labels"], labels(6)[1::2])


def test_words_become_classes_in_their_order(tmp_path: Path) -> None:
    words = ["wasp", "ant", "bee"] * 2
    found = read_parquet([str(table(tmp_path / "t.parquet", label=words))])
    assert found.arrays["classnames"].tolist() == ["ant", "bee", "wasp"]
    assert found.arrays["train_labels"].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"other": [[1.0]] * 6}, r"several.*embedding, other.*features_column='embedding'"),
        ({"labels": labels(6)}, r"several.*label, labels.*label_column='label'"),
        ({"split": None}, r"Nothing says which rows.*split_column=COLUMN"),
        ({"embedding": None}, r"no column of lists of floating-point"),
        ({"embedding": [[1.0, 2.0]] * 5 + [[1.0]]}, r"1 numbers in row 5 and 2 before"),
        ({"embedding": [[1.0, 2.0]] * 5 + [None]}, r"empty cells"),
        ({"embedding": [[1.0, 2.0]] * 5 + [[1.0, None]]}, r"empty cells"),
        ({"label": [0, 1, 2, 0, 1, None]}, r"1 of 6 rows without a label"),
        ({"label": ["a", "b", "c", "d", "e", "f"]}, r"6 different labels in 6 rows"),
        ({"split": ["train", "../x"] * 3}, r"names a split '\.\./x'"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_asked(tmp_path: Path, changes: Any, why: str) -> None:
    with pytest.raises(ImportedFileError, match=why):
        read_parquet([str(table(tmp_path / "t.parquet", **changes))])


def test_a_column_that_is_named_settles_it(tmp_path: Path) -> None:
    other = rows(6, 1).astype(np.float32)
    path = str(table(tmp_path / "t.parquet", other=other.tolist(), kind=["x", "y", "z"] * 2))
    found = read_parquet([path], Columns(features="other", label="kind"))
    np.testing.assert_array_equal(found.arrays["train_features"], other[::2])
    assert found.arrays["classnames"].tolist() == ["x", "y", "z"]
    for wrong in (Columns(features="none"), Columns(features="label")):
        with pytest.raises(ImportedFileError, match="embedding"):
            read_parquet([path], wrong)


def test_float16_and_large_lists_are_read(tmp_path: Path) -> None:
    wanted = rows(6, 1)
    for kind in (pa.large_list(pa.float16()), pa.list_(pa.float16(), 24)):
        column = pa.array(list(wanted), kind)
        found = read_parquet([str(table(tmp_path / "t.parquet", embedding=column))])
        assert found.arrays["train_features"].dtype == np.float16
        np.testing.assert_array_equal(found.arrays["train_features"], wanted[::2])


@pytest.mark.parametrize("lists", [1, 64])
def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: int) -> None:
    """One number, four million times, from some kilobytes: in one row, and in many."""
    monkeypatch.setattr("featcache.importers.parquet_files.RATIO_FROM", 1 << 16)
    path = tmp_path / "t.parquet"
    count = 1 << 22
    ends = np.linspace(0, count, lists + 1).astype(np.int32)
    numbers = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.ones(count, np.float32)))
    rest = {"label": [0] * lists, "split": ["train"] * lists}
    pq.write_table(pa.table({"embedding": numbers, **rest}), path)
    assert path.stat().st_size < 1 << 14
    with pytest.raises(ImportedFileError, match=r"'embedding'.*200 times"):
        read_parquet([str(path)])


def test_memory_is_bounded_while_a_table_is_read() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), bounded(1 << 20):
        np.ones(8 << 30, dtype=np.uint8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.long
def test_damaged_sizes_in_the_metadata_do_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow aborts where such sizes are asked for; found by fuzzing."""
    path = table(tmp_path / "t.parquet")
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(footer, len(whole) - 8):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            read_parquet([str(path)])
        except ImportedFileError:
            continue


def test_a_table_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "t.parquet", 600)
    monkeypatch.setenv("FEATCACHE_MAX_ARRAYS", "50000")
    with pytest.raises(ImportedFileError, match="FEATCACHE_MAX_ARRAYS"):
        read_parquet([str(path)])


@pytest.mark.parametrize("part", [0, 3, 100, -1])
def test_a_truncated_table_is_refused(tmp_path: Path, part: int) -> None:
    path = table(tmp_path / "t.parquet")
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(ImportedFileError, match="not a sound parquet file"):
        read_parquet([str(path)])


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    for name in ("pipe.parquet", "none.parquet"):
        with pytest.raises(ImportedFileError, match=name):
            read_parquet([f"train={tmp_path / name}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportedFileError, match=r"no \.parquet file"):
        read_parquet([str(tmp_path / "empty")])


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "train.parquet").symlink_to(table(tmp_path / "secret.parquet"))
    with pytest.raises(ImportedFileError, match="leads out"):
        read_parquet([str(tmp_path / "theirs")])


def test_names_in_the_schema_that_are_none_are_left_out(tmp_path: Path) -> None:
    parquet(tmp_path)
    for told in (b"{", b"[]", json.dumps({"info": {"features": {"label": {"names": 3}}}})):
        for path in (tmp_path / "data").glob("*.parquet"):
            old = pq.read_table(path)
            pq.write_table(old.replace_schema_metadata({"huggingface": told}), path)
        assert "classnames" not in read_parquet([str(tmp_path)]).arrays


def sources(folder: Path) -> dict[str, Path]:
    return {split: folder / split for split in ("train", "val", "test")}


def test_parts_are_joined_by_their_number(tmp_path: Path) -> None:
    made = clip_retrieval(tmp_path)
    found = read_clip_retrieval(sources(tmp_path))
    np.testing.assert_array_equal(found.arrays["train_features"], made.rows["train"])
    assert found.arrays["train_paths"].tolist() == made.ids["train"]
    assert found.notes == ("Classes are taken from the folder of each image.",)


def test_a_column_of_the_metadata_gives_the_classes(tmp_path: Path) -> None:
    clip_retrieval(tmp_path)
    for path in tmp_path.glob("*/metadata/*.parquet"):
        old = pq.read_table(path)
        pq.write_table(old.append_column("kind", pa.array(["even"] * len(old))), path)
    found = read_clip_retrieval(sources(tmp_path), label_column="kind")
    assert found.arrays["classnames"].tolist() == ["even"]
    with pytest.raises(ImportedFileError, match=r"no column 'none'.*image_path"):
        read_clip_retrieval(sources(tmp_path), label_column="none")


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    clip_retrieval(tmp_path)
    one = tmp_path / "train" / "img_emb" / "img_emb_3.npy"
    whole = one.read_bytes()
    np.save(one, rows(2, 0))
    with pytest.raises(ImportedFileError, match=r"img_emb_3\.npy has 2 rows.*has 1"):
        read_clip_retrieval(sources(tmp_path))
    np.save(one, rows(1, 0, width=8))
    with pytest.raises(ImportedFileError, match=r"24 wide.*img_emb_3\.npy 8"):
        read_clip_retrieval(sources(tmp_path))
    one.write_bytes(whole[:-1])
    with pytest.raises(ImportedFileError, match=r"img_emb_3\.npy says shape"):
        read_clip_retrieval(sources(tmp_path))
    one.unlink()
    with pytest.raises(ImportedFileError, match="part 3 is missing in img_emb"):
        read_clip_retrieval(sources(tmp_path))


def test_images_without_folders_need_a_column(tmp_path: Path) -> None:
    clip_retrieval(tmp_path)
    for path in tmp_path.glob("*/metadata/*.parquet"):
        pq.write_table(pa.table({"image_path": ["0001"] * len(pq.read_table(path))}), path)
    with pytest.raises(ImportedFileError, match=r"label_column=COLUMN"):
        read_clip_retrieval(sources(tmp_path))


def test_folders_are_given_with_their_split() -> None:
    for wrong in (["out"], ["train=a", "train=b"], ["=a"], ["train="]):
        with pytest.raises((UsageError, ImportedFileError), match=r"split|train=FOLDER"):
            folders_by_split(wrong)


def test_control_characters_in_paths_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", image_path=["a\x1b[2J"] * 6)
    with pytest.raises(ImportedFileError, match="control characters"):
        import_features(lambda: read_parquet([str(path)]), tmp_path / "r", "toys", "my model")


def named(path: Path, *names: str) -> Path:
    told = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    found = pq.read_table(table(path, split=None))
    pq.write_table(found.replace_schema_metadata({"huggingface": json.dumps(told)}), path)
    return path


def test_files_whose_labels_mean_other_classes_are_not_mixed(tmp_path: Path) -> None:
    train = named(tmp_path / "a.parquet", "ant", "bee", "wasp")
    test = named(tmp_path / "b.parquet", "bee", "ant", "wasp")
    with pytest.raises(ImportedFileError, match=r"b\.parquet has other class names than .*a\.par"):
        read_parquet([f"train={train}", f"test={test}"])
    test = named(tmp_path / "b.parquet", "ant", "bee", "wasp")
    found = read_parquet([f"train={train}", f"test={test}"])
    assert found.arrays["classnames"].tolist() == ["ant", "bee", "wasp"]


def test_a_row_without_a_split_is_in_none(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", split=["train", "test", None] * 2)
    with pytest.raises(ImportedFileError, match=r"Row 2 of .* names no split"):
        read_parquet([str(path)])


@pytest.mark.parametrize("copied", ["img_emb/img_emb_{}.npy", "metadata/metadata_{}.parquet"])
def test_two_parts_of_one_number_are_refused(tmp_path: Path, copied: str) -> None:
    clip_retrieval(tmp_path)
    part = next((tmp_path / "train").glob(copied.format("*")))
    number = part.stem.rpartition("_")[2]
    part.with_name(part.name.replace(f"_{number}.", f"_0000{number}.")).write_bytes(
        part.read_bytes()
    )
    with pytest.raises(ImportedFileError, match="have one number"):
        read_clip_retrieval({"train": tmp_path / "train"})


def test_parts_that_name_classes_otherwise_are_not_mixed(tmp_path: Path) -> None:
    clip_retrieval(tmp_path)
    part = tmp_path / "train" / "metadata" / "metadata_3.parquet"
    found = pq.read_table(part)
    pq.write_table(found.append_column("label", pa.array(["ant"] * len(found))), part)
    with pytest.raises(ImportedFileError, match=r"do not name classes alike.*label_column"):
        read_clip_retrieval({"train": tmp_path / "train"})


def test_a_class_name_that_ends_in_a_nul_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", label=["ant", "ant\0", "bee"] * 2)
    with pytest.raises(ImportedFileError, match="end in a NUL"):
        read_parquet([str(path)])
