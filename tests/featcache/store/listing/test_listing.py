import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError
from featcache.store.format.seal import seal, unseal
from featcache.store.listing.files import COPY, LOST, MappedFile, write_set
from featcache.store.listing.lazy_columns import to_npy
from featcache.store.listing.listing import (
    check_listing,
    count_images,
    current_set,
    read_listing,
    read_origin,
    repair_listing,
    write_listing,
)
from featcache.store.listing.pointer import CURRENT, CURRENT_COPY, FILES
from featcache.types import Listing

Make = Callable[..., Listing]


def same(a: Listing, b: Listing) -> bool:
    plain = ("dataset", "root", "classes", "ids", "hashes", "templates", "descriptions", "notes")
    return (
        all(getattr(a, name) == getattr(b, name) for name in plain)
        and a.labels.tolist() == b.labels.tolist()
        and {k: v.tolist() for k, v in a.splits.items()}
        == {k: v.tolist() for k, v in b.splits.items()}
        and (a.default_text, a.draws) == (b.default_text, b.draws)
        and (a.sets, a.waffle, a.own_texts) == (b.sets, b.waffle, b.own_texts)
    )


def test_round_trip(tmp_path: Path, listing: Make) -> None:
    assert read_listing(tmp_path / "listing") is None
    for made in (
        listing(7),
        listing(7, labels=np.full(7, -1), classes=(), splits={}, draws="stored"),
        listing(2, ids=("\udcff.jpg", "日本.jpg"), hashes=("import:0", "import:1")),
        listing(3, sets={"cupl": {"bee": ("it stings",)}, "dclip": {}}, own_texts=("cupl",)),
        listing(3, waffle=("a {} of x", "a {} of x")),
        listing(3, splits={"train@1": np.array([2, 0]), "test": np.array([], dtype=np.int64)}),
    ):
        write_listing(tmp_path / "listing", made)
        found = read_listing(tmp_path / "listing")
        assert found is not None
        assert same(found, made)
        assert count_images(tmp_path / "listing") == len(made)
        assert len(list((tmp_path / "listing").glob("set-*"))) == 2
        assert read_origin(tmp_path / "listing") == ("toys", "photos", "")


def touch(listing: Listing | None) -> None:
    """Use every part of a listing, as somebody would who reads it."""
    assert listing is not None
    assert list(listing.ids)
    assert list(listing.hashes)
    assert listing.labels is not None
    assert listing.splits is not None


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone", "link", "pipe", "folder"])
def test_damage_is_found_and_repaired(
    tmp_path: Path, listing: Make, file: str, damage: str
) -> None:
    write_listing(tmp_path, listing(9))
    assert check_listing(tmp_path) == []
    assert not repair_listing(tmp_path)
    for part in ("", COPY):
        path = tmp_path / (current_set(tmp_path) + part) / file
        data = path.read_bytes()
        hurt(path, damage)
        if not part:
            with pytest.raises(CorruptCacheError, match=r"`featcache repair`|symbolic link"):
                touch(read_listing(tmp_path))
        else:
            touch(read_listing(tmp_path))
        assert len(check_listing(tmp_path)) == 1
        assert str(path) in check_listing(tmp_path)[0]
        assert repair_listing(tmp_path)
        assert path.read_bytes() == data
        assert not path.is_symlink()
        assert check_listing(tmp_path) == []


def hurt(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    path.unlink()
    match damage:
        case "flip":
            data[len(data) // 2] ^= 4
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"0")
        case "link":
            path.with_name("elsewhere").write_bytes(data)
            path.symlink_to("elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()


def test_every_byte_counts(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(3))
    for path in sorted(tmp_path.glob("**/*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        for at in range(0, len(data), 19):
            changed = bytearray(data)
            changed[at] ^= 1 << at % 8
            path.write_bytes(changed)
            assert check_listing(tmp_path), (path, at)
        path.write_bytes(data + b"\n")
        assert check_listing(tmp_path)
        path.write_bytes(data)
    assert check_listing(tmp_path) == []


@pytest.mark.parametrize("file", [CURRENT, CURRENT_COPY])
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone", "link", "pipe", "folder"])
def test_either_pointer_restores_the_other(
    tmp_path: Path, listing: Make, file: str, damage: str
) -> None:
    write_listing(tmp_path, listing(9))
    data = (tmp_path / file).read_bytes()
    hurt(tmp_path / file, damage)
    if file == CURRENT and damage != "gone":
        with pytest.raises(CorruptCacheError):
            read_listing(tmp_path)
    assert len(check_listing(tmp_path)) == 1
    assert repair_listing(tmp_path)
    assert (tmp_path / file).read_bytes() == data
    assert check_listing(tmp_path) == []
    touch(read_listing(tmp_path))


def test_a_whole_set_comes_back(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(9))
    name = current_set(tmp_path)
    for lost in (name, name + COPY):
        (tmp_path / lost).rename(tmp_path / f"was-{lost}")
        assert len(check_listing(tmp_path)) == len(FILES)
        assert repair_listing(tmp_path)
        assert check_listing(tmp_path) == []
    (tmp_path / name).rename(tmp_path / "moved")
    (tmp_path / name).symlink_to(tmp_path / "moved")
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        read_listing(tmp_path)
    assert repair_listing(tmp_path)
    assert not (tmp_path / name).is_symlink()
    touch(read_listing(tmp_path))


def test_what_both_copies_lost_is_said_to_be_lost(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(9))
    for path in tmp_path.glob("*/labels.npy"):
        path.write_bytes(b"")
    for path in tmp_path.glob("*.copy/ids.utf8"):
        path.unlink()
    assert repair_listing(tmp_path)
    assert [LOST in problem for problem in check_listing(tmp_path)] == [True, True]
    assert not repair_listing(tmp_path)
    (tmp_path / CURRENT).write_bytes(b"")
    (tmp_path / CURRENT_COPY).write_bytes(b"")
    assert not repair_listing(tmp_path)
    assert [LOST in problem for problem in check_listing(tmp_path)] == [True, True]
    write_listing(tmp_path, listing(9))
    assert check_listing(tmp_path) == []


def test_a_stranger_cannot_ask_for_memory(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(3))
    pointer = unseal((tmp_path / CURRENT).read_bytes()[:-1])[0]
    changes: list[dict[str, Any]] = [
        {"set": "../../etc"},
        {"images": "3"},
        {"images": -1},
        {"files": {}},
        {"files": {**cast("dict[str, Any]", pointer["files"]), "more": {"bytes": 1, "crc32": 1}}},
        {"kind": "shard"},
    ]
    for change in changes:
        (tmp_path / CURRENT).write_bytes(seal({**pointer, **change})[0])
        with pytest.raises(CorruptCacheError, match="missing or wrong"):
            read_listing(tmp_path)
    (tmp_path / CURRENT).write_bytes(seal({**pointer, "images": 1 << 40})[0])
    with pytest.raises(CorruptCacheError, match=f"no array of {1 << 40}"):
        read_listing(tmp_path)
    (tmp_path / CURRENT).write_bytes(seal({**pointer, "format": 99})[0])
    with pytest.raises(NewerFormatError):
        read_listing(tmp_path)
    (tmp_path / CURRENT).write_bytes(b" " * (1 << 21))
    with pytest.raises(CorruptCacheError, match="too large"):
        read_listing(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("offsets.npy", to_npy(np.array([0, 9, 3, 12])), "ids"),
        ("offsets.npy", to_npy(np.array([0, 1, 2, 99])), "ids"),
        ("offsets.npy", to_npy(np.array([1, 1, 2, 12])), "ids"),
        ("ids.utf8", b"abc\xffefghijkl", "ids"),
        ("labels.npy", to_npy(np.array([0, 1, 2])), "labels"),
        ("labels.npy", to_npy(np.array([0, -2, 1])), "labels"),
        ("labels.npy", b"x" * 152, "labels"),
        ("splits.npy", to_npy(np.array([0, 1, 3])), "splits"),
        ("splits.npy", to_npy(np.array([0, 1, -1])), "splits"),
        ("splits.npy", to_npy(np.array([0, 1])), "splits"),
        ("hashes.bin", b"x" * 95, "hashes"),
        ("listing.json", b"{}", "classes"),
        ("listing.json", b"[" * 100_000, "classes"),
    ],
)
def test_crafted_files_with_good_checksums(
    tmp_path: Path, listing: Make, file: str, content: bytes, part: str
) -> None:
    write_listing(tmp_path, listing(3, ids=("abcd", "efgh", "ijkl")))
    files = {f: (tmp_path / current_set(tmp_path) / f).read_bytes() for f in FILES}
    write_set(tmp_path, 3, {**files, file: content})
    assert len(check_listing(tmp_path)) == 1
    with pytest.raises(CorruptCacheError, match=re.escape(file)):
        list(getattr(read_listing(tmp_path), part))


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
        replace(good, classes=("ant", "ant")),
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
