from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CacheError
from featcache.store.listing.files import MappedFile
from featcache.store.listing.listing import (
    check_listing,
    count_images,
    current_set,
    read_listing,
    read_origin,
    write_listing,
)
from featcache.store.listing.pointer import FILES
from featcache.types import Listing
from tests.featcache.store.listing.helpers import hurt, same

Make = Callable[..., Listing]


def test_round_trip(tmp_path: Path, listing: Make) -> None:
    assert read_listing(tmp_path / "listing") is None
    for made in (
        listing(7),
        listing(7, labels=np.full(7, -1), classes=(), splits={}, draws="stored"),
        listing(2, ids=("\udcff.jpg", "日本.jpg"), hashes=("import:0", "import:1")),
        listing(3, sets={"cupl": {"bee": ("it stings",)}, "dclip": {}}, own_texts=("cupl",)),
        listing(3, waffle=("a {} of x", "a {} of x")),
        listing(3, prompts=("a dog.", "a b\xe4r.")),
        listing(3, splits={"train@1": np.array([2, 0]), "test": np.array([], dtype=np.int64)}),
    ):
        write_listing(tmp_path / "listing", made)
        found = read_listing(tmp_path / "listing")
        assert found is not None
        assert same(found, made)
        assert count_images(tmp_path / "listing") == len(made)
        assert len(list((tmp_path / "listing").glob("set-*"))) == 2
        assert read_origin(tmp_path / "listing") == ("toys", "photos", "")


def test_nothing_but_the_description_is_read_at_opening(
    tmp_path: Path, listing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_listing(tmp_path, listing(9))
    read: list[str] = []
    plain = MappedFile.data

    def noted(self: MappedFile) -> Any:
        read.append(self.path.name)
        return plain(self)

    monkeypatch.setattr(MappedFile, "data", noted)
    found = read_listing(tmp_path)
    assert found is not None
    assert (len(found), len(found.hashes), found.classes) == (9, 9, ("ant", "bee"))
    assert read == ["listing.json"]
    for part, files in (
        ("labels", {"labels.npy"}),
        ("splits", {"splits.npy"}),
        ("hashes", {"hashes.bin"}),
        ("ids", {"ids.utf8", "offsets.npy"}),
    ):
        read.clear()
        list(getattr(found, part))
        assert set(read) == files


def test_a_reader_keeps_what_it_opened(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(9))
    found = read_listing(tmp_path)
    write_listing(tmp_path, listing(40, labels=np.zeros(40, dtype=np.int64)))
    write_listing(tmp_path, listing(41))
    assert found is not None
    assert same(found, listing(9))
    found.labels[:] = 7  # a map of its own
    assert check_listing(tmp_path) == []


def test_an_equal_listing_is_not_written_again(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(9))
    path = tmp_path / current_set(tmp_path) / "labels.npy"
    before = path.stat().st_ino
    write_listing(tmp_path, listing(9))
    assert path.stat().st_ino == before
    hurt(path, "flip")
    write_listing(tmp_path, listing(9))
    assert check_listing(tmp_path) == []


def test_columns_behave_like_tuples(tmp_path: Path, listing: Make) -> None:
    ids = ("b", "", "ab", "a", "\udcff.jpg", "bb", "日本.jpg", "a\nb")
    made = listing(8, ids=ids)
    write_listing(tmp_path, made)
    found = read_listing(tmp_path)
    assert found is not None
    pairs: list[tuple[Any, Any]] = [(found.ids, ids), (found.hashes, made.hashes)]
    for column, plain in pairs:
        assert column == plain
        assert plain == column
        assert column == [*plain]
        assert column != plain[:-1]
        assert column != (*plain[:-1], "x")
        assert tuple(column) == plain
        assert tuple(reversed(column)) == plain[::-1]
        for cut in (slice(None), slice(2, 5), slice(None, None, -2), slice(5, 2), slice(-3, 99)):
            assert column[cut] == plain[cut]
        for row, text in enumerate(plain):
            assert column.index(text) == row
            assert text in column
            assert column[row] == column[row - 8] == column[np.int64(row)] == text
        for wrong in ("nowhere", "jpg", "A" * 64, 3, "\ud800"):
            assert wrong not in column
            with pytest.raises(ValueError, match="is not among"):
                column.index(wrong)
        for row in (8, -9):
            with pytest.raises(IndexError):
                column[row]
        with pytest.raises(ValueError, match="is not among"):
            column.index(plain[2], 3)


def test_copies_of_one_image_are_found_in_order(tmp_path: Path, listing: Make) -> None:
    one = "ab" * 32
    write_listing(tmp_path, listing(3, hashes=(one, "cd" * 32, one)))
    found = read_listing(tmp_path)
    assert found is not None
    assert found.hashes.index(one) == 0
    assert found.hashes.index(one, 1) == 2
    write_listing(tmp_path, listing(3, hashes=("import:0", "import:1", "import:2")))
    found = read_listing(tmp_path)
    assert found is not None
    assert found.hashes.index("import:2") == 2
    for wrong in ("import:3", "import:-1", "import:01", "import:", "2"):
        assert wrong not in found.hashes


def test_a_changed_copy_of_a_stored_listing_can_be_written(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(9))
    found = read_listing(tmp_path)
    assert found is not None
    relabelled = replace(found, labels=np.zeros(9, dtype=np.int64))
    write_listing(tmp_path, relabelled)
    again = read_listing(tmp_path)
    assert again is not None
    assert same(again, replace(listing(9), labels=np.zeros(9, dtype=np.int64)))


def test_a_failed_switch_leaves_the_old_listing(
    tmp_path: Path, listing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_listing(tmp_path, listing(3))

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(CacheError, match="No space"):
            write_listing(tmp_path, listing(4))
    found = read_listing(tmp_path)
    assert found is not None
    assert len(found) == 3


def test_wherever_a_writer_dies_a_listing_can_be_read(
    tmp_path: Path, listing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 2 * len(FILES) + 2
    plain = Path.replace
    for last in (0, 3, 6, 9, 12, 13, steps):
        folder = tmp_path / str(last)
        write_listing(folder, listing(3))
        done: list[Path] = []

        def step(self: Path, target: Path, done: list[Path] = done, last: int = last) -> Path:
            if len(done) == last:
                raise KeyboardInterrupt
            done.append(target)
            return plain(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", step)
            try:
                write_listing(folder, listing(4))
            except KeyboardInterrupt:
                assert last < steps
            else:
                assert last == steps
        found = read_listing(folder)
        assert found is not None
        assert same(found, listing(4 if last == steps else 3))
        write_listing(folder, listing(4))
        assert check_listing(folder) == []
        assert len(list(folder.iterdir())) == 4


def test_parts_that_disagree_are_refused(tmp_path: Path, listing: Make) -> None:
    good = listing(4)
    for bad in (
        replace(good, ids=good.ids[:3]),
        replace(good, ids=("same",) * 4),
        replace(good, labels=np.array([0, 1, 2, 0])),
        replace(good, labels=np.array([0, 1, -2, 0])),
        replace(good, splits={"train": np.array([0, 4])}),
        replace(good, splits={"train": np.array([1, 1])}),
        replace(good, hashes=("x", *good.hashes[1:])),
        replace(good, hashes=("AB" * 32, *good.hashes[1:])),
        replace(good, hashes=("ab " * 21 + "a", *good.hashes[1:])),
        replace(good, hashes=("import:0", *good.hashes[1:])),
        replace(good, hashes=("import:1", "import:0", "import:2", "import:3")),
    ):
        with pytest.raises(CacheError):
            write_listing(tmp_path, bad)
    assert read_listing(tmp_path) is None
