"""Damaged files of a listing are found, refused and restored."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from featcache.errors import CorruptCacheError, NewerFormatError
from featcache.store.format.seal import seal, unseal
from featcache.store.listing.files import COPY, LOST, write_set
from featcache.store.listing.lazy_columns import to_npy
from featcache.store.listing.listing import (
    check_listing,
    current_set,
    read_listing,
    repair_listing,
    write_listing,
)
from featcache.store.listing.pointer import CURRENT, CURRENT_COPY, FILES
from featcache.types import Listing
from featcache.wording import in_python
from tests.featcache.store.listing.helpers import hurt, touch

Make = Callable[..., Listing]


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
        assert str(path) in in_python(check_listing(tmp_path))
        assert repair_listing(tmp_path)
        assert path.read_bytes() == data
        assert not path.is_symlink()
        assert check_listing(tmp_path) == []


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
    assert [LOST in in_python([problem]) for problem in check_listing(tmp_path)] == [True, True]
    assert not repair_listing(tmp_path)
    (tmp_path / CURRENT).write_bytes(b"")
    (tmp_path / CURRENT_COPY).write_bytes(b"")
    assert not repair_listing(tmp_path)
    assert [LOST in in_python([problem]) for problem in check_listing(tmp_path)] == [True, True]
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
