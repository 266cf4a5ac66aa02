"""Orphans are adopted, deleted or left alone."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store.cache import Cache
from featcache.store.listing.listing import write_listing
from featcache.store.repair.verify import repair, verify
from featcache.types import ComponentKey, FeatureKey
from tests.featcache.store.repair.helpers import manifest

Make = Callable[..., Any]
HERE = {"featcache": "0", "crc": "01234567"}


def test_what_was_dropped_stays_dropped(cache: Cache) -> None:
    path = cache.path / "global" / "00000000-00000005.h5"
    data = path.read_bytes()
    cache.drop("global", path.name)
    path.write_bytes(data)
    opened = Cache.open(cache.path)
    with opened.lock():
        pass
    assert opened.covered("global").sum() == 5
    assert not path.exists()
    assert any(f"Deleted {path}" in note for note in opened.notes)


@pytest.mark.parametrize("damage", ["block", "padding", "hdf5", "row", "cut", "longer", "gone"])
def test_a_orphan_that_is_not_sound_is_not_adopted(cache: Cache, damage: str) -> None:
    path = cache.path / "global" / "00000005-00000010.h5"
    lines = manifest(cache).read_bytes().splitlines(keepends=True)
    manifest(cache).write_bytes(b"".join(lines[:2]))
    facts = cache.shards["global"][1].facts
    data = bytearray(path.read_bytes())
    positions = {"block": 30, "padding": data.index(b"\n") - 1, "hdf5": 1100, "row": facts.offset}
    if damage in positions:
        data[positions[damage]] ^= 1
        path.write_bytes(data)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data + b"\0")
    opened = Cache.open(cache.path)
    with opened.lock():
        pass
    assert opened.covered("global").sum() == 5
    assert path.exists() == (damage in ("block", "padding"))  # nothing shows that it is ours


def test_a_sound_orphan_of_another_place_is_not_adopted(
    cache: Cache, plain: ComponentKey, values: Make, key: FeatureKey, listing: Make, tmp_path: Path
) -> None:
    other = Cache.create(
        tmp_path / "root",
        "others",
        "Toy/2",
        FeatureKey(
            architecture="other",
            weights="0" * 64,
            activation="gelu",
            image_size=8,
            preprocessing="",
        ),
    )
    other.put_listing(listing(40))
    rows = np.arange(30, 35)
    other.append(plain, rows, values(rows), {}, HERE)
    foreign = other.path / "global" / "00000030-00000035.h5"
    ours = (cache.path / "global" / "00000000-00000005.h5").read_bytes()
    (cache.path / "patches.vanilla").mkdir()
    for target, data in (
        (cache.path / "global" / foreign.name, foreign.read_bytes()),
        (cache.path / "patches.vanilla" / "00000000-00000005.h5", ours),
    ):
        target.write_bytes(data)
        opened = Cache.open(cache.path)
        with opened.lock():
            pass
        assert opened.covered("global").sum() == 10
        assert target.exists()
        said = [note for note in opened.notes if "another cache or component" in note]
        assert any(note.startswith(f"Left {target} alone") for note in said)


def test_rows_that_nobody_listed_are_not_adopted(
    cache: Cache, plain: ComponentKey, values: Make, listing: Make
) -> None:
    data = manifest(cache).read_bytes()
    smaller = {
        p.relative_to(cache.path): p.read_bytes()
        for p in cache.path.glob("listing/**/*")
        if p.is_file()
    }
    cache.put_listing(listing(30))
    rows = np.arange(25, 30)
    cache.append(plain, rows, values(rows), {}, HERE)
    manifest(cache).write_bytes(data)
    for path, content in smaller.items():
        (cache.path / path).parent.mkdir(exist_ok=True)
        (cache.path / path).write_bytes(content)
    opened = Cache.open(cache.path)
    with opened.lock():
        pass
    assert opened.covered("global").sum() == 10
    assert any("nobody listed" in note for note in opened.notes)


def test_links_among_orphans_are_not_followed(cache: Cache, tmp_path: Path) -> None:
    shard = cache.path / "global" / "00000005-00000010.h5"
    lines = manifest(cache).read_bytes().splitlines(keepends=True)
    manifest(cache).write_bytes(b"".join(lines[:2]))
    target = tmp_path / "elsewhere.h5"
    shard.rename(target)
    shard.symlink_to(target)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "00000000-00000001.h5").write_bytes(b"somebody's own")
    (folder / ".x.tmp-1-ab").write_bytes(b"somebody's own")
    (cache.path / "patches.vanilla").symlink_to(folder)
    opened = Cache.open(cache.path)
    with opened.lock():
        pass
    assert opened.covered("global").sum() == 5
    assert target.exists()
    assert len(list(folder.iterdir())) == 2


def test_any_order_of_orphans_lets_the_mended_row_win(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    rows = np.arange(10, 13)
    cache.append(plain, rows, values(rows), {10: "?", 12: "?"}, HERE)
    cache.append(plain, np.array([10]), values([10]), {}, HERE)
    cache.append(plain, np.array([12]), values([12]), {}, HERE)
    lines = manifest(cache).read_bytes().splitlines(keepends=True)
    for kept in permutations(lines[4:], 1):
        manifest(cache).write_bytes(b"".join([*lines[:3], *kept]))
        assert repair(cache.path).is_sound
        assert Cache.open(cache.path).bad_rows() == {}


def test_a_orphan_of_other_images_is_left_alone(cache: Cache, listing: Make) -> None:
    lines = manifest(cache).read_bytes().splitlines(keepends=True)
    manifest(cache).write_bytes(b"".join(lines[:2]))
    hashes = list(listing(20).hashes)
    hashes[5:7] = hashes[6], hashes[5]
    write_listing(cache.path / "listing", listing(20, hashes=tuple(hashes)))
    path = cache.path / "global" / "00000005-00000010.h5"
    for _ in range(2):
        opened = Cache.open(cache.path)
        with opened.lock():
            pass
        assert opened.covered("global").sum() == 5
        assert path.exists()
        assert any("other images than the listing names" in note for note in opened.notes)


def test_a_orphan_that_adds_nothing_counts_as_older(
    cache: Cache, plain: ComponentKey, values: Make, tmp_path: Path
) -> None:
    """A shard of other numbers for rows that are held already, as from a backup of long ago."""
    old = Cache.create(tmp_path / "old", "toys", "Toy/1", cache.key)
    listing = cache.listing()
    assert listing is not None
    old.put_listing(listing)
    rows = np.arange(2, 8)
    old.append(plain, rows, values(rows) + 1, {3: "is cut off"}, HERE)
    name = "00000002-00000008.h5"
    (cache.path / "global" / name).write_bytes((old.path / "global" / name).read_bytes())
    before = cache.rows("global").gather(np.arange(10))
    for broken in (False, True):
        if broken:
            data = manifest(cache).read_bytes()
            manifest(cache).write_bytes(data.replace(b'"kind":"pass"', b'"kind":"pasS"'))
            assert repair(cache.path).is_sound
        opened = Cache.open(cache.path)
        with opened.lock():
            pass
        opened = Cache.open(cache.path)
        assert opened.shards["global"][0].file == name
        assert len(opened.shards["global"]) == 3
        np.testing.assert_array_equal(opened.rows("global").gather(np.arange(10)), before)
        assert opened.bad_rows() == {}
        assert verify(cache.path, full=True).is_sound
