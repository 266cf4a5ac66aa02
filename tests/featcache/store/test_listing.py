import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError
from featcache.store.listing import CURRENT, count_images, read_listing, write_listing
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
    )


def test_round_trip(tmp_path: Path, listing: Make) -> None:
    assert read_listing(tmp_path / "listing") is None
    for made in (
        listing(7),
        listing(7, labels=np.full(7, -1), classes=(), splits={}, draws="stored"),
        listing(2, ids=("\udcff.jpg", "日本.jpg"), hashes=("import:0", "import:1")),
        listing(3, splits={"train@1": np.array([2, 0]), "test": np.array([], dtype=np.int64)}),
    ):
        write_listing(tmp_path / "listing", made)
        found = read_listing(tmp_path / "listing")
        assert found is not None
        assert same(found, made)
        assert count_images(tmp_path / "listing") == len(made)
        assert len(list((tmp_path / "listing").glob("set-*"))) == 1


@pytest.mark.parametrize("file", ["listing.json", "ids.json", "hashes.txt", "labels.npy"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_is_found(tmp_path: Path, listing: Make, file: str, damage: str) -> None:
    write_listing(tmp_path, listing(9))
    path = next(tmp_path.glob(f"set-*/{file}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(CorruptCacheError, match=file):
        read_listing(tmp_path)


def test_pointer_is_checked(tmp_path: Path, listing: Make) -> None:
    write_listing(tmp_path, listing(3))
    pointer: dict[str, Any] = json.loads((tmp_path / CURRENT).read_bytes())
    changes: list[dict[str, Any]] = [{"set": "../../etc"}, {"images": "3"}, {"files": {}}]
    for change in changes:
        (tmp_path / CURRENT).write_text(json.dumps({**pointer, **change}))
        with pytest.raises(CorruptCacheError, match="missing or wrong"):
            read_listing(tmp_path)
    (tmp_path / CURRENT).write_text(json.dumps({**pointer, "format": 99}))
    with pytest.raises(NewerFormatError):
        read_listing(tmp_path)
    (tmp_path / CURRENT).write_text("{")
    with pytest.raises(CorruptCacheError):
        read_listing(tmp_path)


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
    ):
        with pytest.raises(CacheError):
            write_listing(tmp_path, bad)
    assert read_listing(tmp_path) is None
