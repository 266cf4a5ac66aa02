"""Whatever is read was compared with what was written: rows, their order, whose images they are."""

import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import CorruptCacheError
from featcache.store import checked
from featcache.store import rows as rows_module
from featcache.store.cache import Cache
from featcache.store.format import checksums as sums
from featcache.store.format.checksums import sums_of, sums_path, write_sums
from featcache.store.format.records import ShardLine
from featcache.store.format.shard import write_shard
from featcache.store.listing.listing import write_listing
from featcache.store.rows import ShardRows, ranges_of
from tests.featcache.store.conftest import _listing as make_listing
from tests.featcache.store.reading.shards import KEYS, N, flip, read, shard_of
from tests.tiers import quick


@pytest.mark.parametrize("has_sums", [True, False])
@pytest.mark.parametrize("name", quick(KEYS, 3))
def test_a_changed_byte_of_any_row_is_found_by_reading(
    whole: Cache, name: str, has_sums: bool
) -> None:
    path, line = shard_of(whole, name)
    if not has_sums:
        sums_path(path).unlink()
    sound = read(whole.path, name)
    width = line.facts.row_bytes
    for position in range(len(sound) - 7):
        place = line.facts.offset + position * width + (position * 7919) % width
        flip(path, place, 1 << position % 8)
        for rows in (None, [7 + position], [0, 7 + position, 3]):
            with pytest.raises(CorruptCacheError, match="is not what was written") as caught:
                read(whole.path, name, rows)
            assert str(path) in str(caught.value)
            assert "featcache repair" in str(caught.value)
            if has_sums and width > sums.BLOCK:
                assert f"row {7 + position} (train/ä {7 + position}" in str(caught.value)
        np.testing.assert_array_equal(read(whole.path, name, [0, 3, 6]), sound[[0, 3, 6]])
        flip(path, place, 1 << position % 8)
    np.testing.assert_array_equal(read(whole.path, name), sound)


@pytest.mark.parametrize("with_sums", [True, False])
@pytest.mark.parametrize("name", ["global", "patches", "crops", "view patches"])
def test_shards_of_another_cache_are_refused(
    whole: Cache, other: Cache, name: str, with_sums: bool
) -> None:
    path, _ = shard_of(whole, name)
    foreign, _ = shard_of(other, name)
    shutil.copy(foreign, path)
    if with_sums:
        shutil.copy(sums_path(foreign), sums_path(path))
    with pytest.raises(CorruptCacheError, match="is not what was written"):
        read(whole.path, name)
    assert read(whole.path, name, [0, 6]).shape[0] == 2


@pytest.mark.parametrize("name", KEYS)
def test_no_row_is_read_under_the_listing_of_another_cache(
    whole: Cache, other: Cache, name: str
) -> None:
    shutil.rmtree(whole.path / "listing")
    shutil.copytree(other.path / "listing", whole.path / "listing")
    with pytest.raises(CorruptCacheError, match="made of other images than the listing names"):
        read(whole.path, name, [0])
    with pytest.raises(CorruptCacheError, match="made of other images than the listing names"):
        Cache.open(whole.path).covered(KEYS[name][0].folder)


def test_a_listing_may_grow_and_change_labels(whole: Cache) -> None:
    before = read(whole.path, "patches")
    old = whole.listing()
    assert old is not None
    grown = make_listing(
        25,
        hashes=(*old.hashes, *("e" * 64 for _ in range(5))),
        labels=np.zeros(25, dtype=np.int64),
        splits={"train": np.array([3, 24])},
    )
    whole.put_listing(grown)
    np.testing.assert_array_equal(read(whole.path, "patches"), before)
    hashes = (*old.hashes[:8], "d" * 64, *old.hashes[9:])
    write_listing(whole.path / "listing", replace(grown, hashes=(*hashes, *grown.hashes[20:])))
    assert len(read(whole.path, "patches", [0, 6])) == 2  # of the shard whose images they are
    with pytest.raises(CorruptCacheError, match="other images"):
        read(whole.path, "patches", [7])


@settings(max_examples=20, deadline=None)
@given(
    data=st.data(),
    n=st.integers(1, 60),
    width=st.sampled_from([1, 2, 3, 16, 40]),
    block=st.sampled_from([1, 8, 64]),
    buffer=st.sampled_from([1, 100, 1 << 19]),
)
def test_any_rows_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, data: Any, n: int, width: int, block: int, buffer: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    table = np.random.default_rng(n).standard_normal((n, width)).astype(np.float16)
    with mock.patch.object(sums, "BLOCK", block), mock.patch.object(checked, "BUFFER", buffer):
        facts = write_shard(folder / "a.h5", table)
        write_sums(folder / "a.h5", facts, sums_of(table, facts))
        line = ShardLine(
            component="global",
            file="a.h5",
            rows=ranges_of(np.arange(n)),
            bad=(),
            facts=facts,
            images_crc32=0,
            provenance={},
        )
        reader = ShardRows(folder, [line], n)
        for _ in range(4):
            first = data.draw(st.integers(0, n - 1))
            some = data.draw(st.lists(st.integers(0, n - 1), max_size=30))
            for rows in (np.array(some, dtype=np.int64), np.arange(first, n), np.arange(first)):
                np.testing.assert_array_equal(reader.gather(rows), table[rows])
        place = data.draw(st.integers(0, table.nbytes - 1))
        flip(folder / "a.h5", facts.offset + place)
        again = ShardRows(folder, [line], n)
        row = place // facts.row_bytes
        for rows in (np.array([row]), np.arange(n), np.arange(n)[::-1], np.arange(row, n)):
            with pytest.raises(CorruptCacheError):
                again.gather(rows)


def test_a_row_is_compared_once(whole: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(data: Any, value: int = 0) -> int:
        calls.append(len(data))
        return zlib.crc32(data, value)

    monkeypatch.setattr(checked, "crc32", counted)
    for name, most in (("patches", 3), ("global", 2)):
        reader, rows = whole.rows(KEYS[name][0].folder), np.array([0, 3, 8])
        calls.clear()
        reader.gather(rows)
        assert len(calls) == most
        reader.gather(rows)
        assert len(calls) == most
    reader.gather(np.arange(N))
    assert len(calls) == 2  # their blocks were read with the others


def test_what_changed_while_it_was_not_mapped_is_compared_again(
    whole: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "MAPS", 1)
    path, line = shard_of(whole, "patches")
    reader = whole.rows("patches.clearclip")
    reader.gather(np.arange(N))
    reader.gather(np.array([0]))  # takes the only place
    flip(path, line.facts.offset + 5)
    with pytest.raises(CorruptCacheError, match="row 7 "):
        reader.gather(np.array([7]))


def test_threads_read_at_once(whole: Cache) -> None:
    for name in KEYS:
        sound = read(whole.path, name)
        reader = Cache.open(whole.path).rows(KEYS[name][0].folder)
        orders = [np.random.default_rng(i).permutation(N) for i in range(24)]
        with ThreadPoolExecutor(8) as pool:
            for rows, found in zip(orders, pool.map(reader.gather, orders), strict=True):
                np.testing.assert_array_equal(found, sound[rows])
