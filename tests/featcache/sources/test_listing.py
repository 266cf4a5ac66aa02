"""Rows follow content: what is renamed, moved, relabelled, changed, gone or copied."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import SourceError
from featcache.keys import Listing
from featcache.sources import hashing
from featcache.sources.listing import build_listing
from featcache.sources.prefixes.folder import open_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        for split in ("train", "val", "test"):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                (root / split / name / f"{i}.jpg").write_bytes(f"{name}{split}{i}".encode())
    return root


def row_of(table: Listing, image_id: str) -> int:
    return list(table.ids).index(image_id)


def where(table: Listing, row: int) -> list[str]:
    return [name for name, rows in table.splits.items() if row in rows]


def test_a_first_listing_is_in_the_order_of_the_source(root: Path) -> None:
    data = open_folder(root)
    table = build_listing(data)
    assert table.ids == tuple(s.id for s in data.samples)
    assert table.labels.tolist() == [s.label for s in data.samples]
    assert {k: v.tolist() for k, v in table.splits.items()} == {
        "train": [0, 1, 2, 3],
        "val": [4, 5, 6, 7],
        "test": [8, 9, 10, 11],
    }
    assert len(set(table.hashes)) == 12
    assert all(len(h) == 64 for h in table.hashes)


def test_asking_again_changes_nothing(root: Path) -> None:
    table = build_listing(open_folder(root))
    again = build_listing(open_folder(root), table)
    assert (again.ids, again.hashes) == (table.ids, table.hashes)
    assert all(np.array_equal(again.splits[s], table.splits[s]) for s in table.splits)


def test_new_images_are_appended_and_take_their_place_in_the_split(root: Path) -> None:
    table = build_listing(open_folder(root))
    (root / "train" / "cat" / "00.jpg").write_bytes(b"new")
    again = build_listing(open_folder(root), table)
    assert again.ids[:12] == table.ids
    assert again.ids[12] == "train/cat/00.jpg"
    # In the source's order, so that draws do not depend on what was cached when.
    assert again.splits["train"].tolist() == [0, 12, 1, 2, 3]


def test_renaming_relabelling_and_a_new_split_keep_rows(root: Path) -> None:
    table = build_listing(open_folder(root))
    row = row_of(table, "train/cat/1.jpg")
    (root / "train" / "cat" / "1.jpg").rename(root / "test" / "dog" / "renamed.jpg")
    (root / "val").rename(root / "sketch")
    again = build_listing(open_folder(root), table)
    assert len(again) == 12
    assert again.ids[row] == "test/dog/renamed.jpg"
    assert where(again, row) == ["test"]
    assert again.classes[again.labels[row]] == "dog"
    assert sorted(again.splits["sketch"]) == sorted(table.splits["val"])


def test_a_renamed_class_keeps_its_rows(root: Path) -> None:
    table = build_listing(open_folder(root))
    for split in ("train", "val", "test"):
        (root / split / "cat").rename(root / split / "zebra")
    again = build_listing(open_folder(root), table)
    assert again.classes == ("dog", "zebra")
    assert again.hashes == table.hashes
    assert again.labels.tolist() == [1 - label for label in table.labels.tolist()]


def test_a_vanished_image_keeps_its_row_without_split_or_label(root: Path) -> None:
    table = build_listing(open_folder(root))
    row = row_of(table, "test/dog/0.jpg")
    (root / "test" / "dog" / "0.jpg").unlink()
    again = build_listing(open_folder(root), table)
    assert len(again) == 12
    assert (where(again, row), again.labels[row]) == ([], -1)
    (root / "test" / "dog" / "0.jpg").write_bytes(b"dogtest0")
    back = build_listing(open_folder(root), again)
    assert (len(back), where(back, row), back.ids[row]) == (12, ["test"], "test/dog/0.jpg")


def test_changed_content_is_a_new_row_under_the_same_id(root: Path) -> None:
    table = build_listing(open_folder(root))
    row = row_of(table, "test/dog/0.jpg")
    (root / "test" / "dog" / "0.jpg").write_bytes(b"other")
    again = build_listing(open_folder(root), table)
    assert again.ids[12] == "test/dog/0.jpg"
    assert where(again, 12) == ["test"]
    assert where(again, row) == []
    assert len(set(again.ids)) == 13
    (root / "test" / "dog" / "0.jpg").write_bytes(b"dogtest0")
    back = build_listing(open_folder(root), again)
    assert (len(back), back.ids[row], where(back, row)) == (13, "test/dog/0.jpg", ["test"])


def test_two_files_that_swap_names_swap_nothing_else(root: Path) -> None:
    table = build_listing(open_folder(root))
    one, two = root / "train" / "cat" / "0.jpg", root / "train" / "dog" / "0.jpg"
    one.rename(root / "x")
    two.rename(one)
    (root / "x").rename(two)
    again = build_listing(open_folder(root), table)
    assert again.hashes == table.hashes
    assert again.labels[row_of(again, "train/cat/0.jpg")] == 0
    assert row_of(again, "train/cat/0.jpg") == row_of(table, "train/dog/0.jpg")


def test_copies_have_rows_of_their_own_and_are_told(root: Path) -> None:
    shutil.copy(root / "train/cat/0.jpg", root / "test/dog/copy.jpg")
    table = build_listing(open_folder(root))
    assert len(table) == 13
    note = next(n for n in table.notes if "copies" in n)
    assert "1 of them in another split and 1 in another class" in note
    assert "test/dog/copy.jpg = train/cat/0.jpg" in note
    (root / "train/cat/0.jpg").unlink()
    again = build_listing(open_folder(root), table)
    assert row_of(again, "test/dog/copy.jpg") == row_of(table, "test/dog/copy.jpg")


def test_another_root_needs_moved(root: Path, tmp_path: Path) -> None:
    table = build_listing(open_folder(root))
    moved = root.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="moved") as error:
        build_listing(open_folder(moved, "photos"), table)
    assert str(root) in str(error.value)
    assert str(moved) in str(error.value)
    again = build_listing(open_folder(moved, "photos"), table, moved=True)
    assert (again.root, again.hashes) == (str(moved), table.hashes)


def test_moved_to_a_place_without_any_of_the_images_is_refused(root: Path, tmp_path: Path) -> None:
    table = build_listing(open_folder(root))
    for name in ("cat", "dog"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "1.jpg").write_bytes(name.encode())
    with pytest.raises(SourceError, match="nothing has moved"):
        build_listing(open_folder(tmp_path / "other"), table, moved=True)


def test_imported_features_are_not_overwritten_by_images(root: Path) -> None:
    table = replace(build_listing(open_folder(root)), root="")
    with pytest.raises(SourceError, match="holds imported features"):
        build_listing(open_folder(root), table)


def test_unreadable_files_are_told_and_keep_the_row_they_had(root: Path) -> None:
    table = build_listing(open_folder(root))
    data = open_folder(root)
    (root / "test" / "cat" / "1.jpg").unlink()
    gone_first = build_listing(data)
    assert len(gone_first) == 12
    assert any("1 files could not be read" in n for n in gone_first.notes)
    assert all(len(h) == 64 for h in gone_first.hashes)
    again = build_listing(data, table)
    assert again.hashes == table.hashes
    assert where(again, row_of(again, "test/cat/1.jpg")) == ["test"]


def test_an_empty_data_set_is_an_error(root: Path) -> None:
    with pytest.raises(SourceError, match="has no images"):
        build_listing(replace(open_folder(root), samples=()))


def test_progress_is_reported_to_the_end(root: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build_listing(open_folder(root), report=lambda *call: told.append(call))
    assert told[-1] == ("hashing images", 12, 12)


def test_hashes_of_another_root_are_not_believed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "RACY_SECONDS", -60.0)  # the files are new, and believed
    known = tmp_path / "known"
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    first = build_listing(open_folder(root), known=known)
    assert len(known.read_bytes().splitlines()) == 13
    other = tmp_path / "moved" / root.name
    shutil.copytree(root, other)
    victim = next(other.rglob("*.jpg"))
    victim.write_bytes(victim.read_bytes()[::-1])
    os.utime(victim, (1, 1))
    second = build_listing(open_folder(other), first, moved=True, known=known)
    assert len(second) == len(first) + 1
