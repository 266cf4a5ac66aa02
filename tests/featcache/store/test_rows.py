import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import CorruptCacheError, MissingComponentError
from featcache.quantise import pack, unpack
from featcache.store import checked
from featcache.store import rows as module
from featcache.store.copying import WIDE
from featcache.store.format.checksums import sums_of, sums_path, write_sums
from featcache.store.format.records import ShardLine
from featcache.store.format.shard import ShardFacts, fetch, write_shard
from featcache.store.rows import ShardRows, count_rows, covers, ranges_of


def shard(folder: Path, name: str, rows: Any, values: Any, bad: tuple[int, ...] = ()) -> ShardLine:
    facts = write_shard(folder / name, values)
    write_sums(folder / name, facts, sums_of(values, facts))
    return ShardLine(
        component="global",
        file=name,
        rows=ranges_of(rows),
        bad=tuple((position, "torn") for position in bad),
        facts=facts,
        images_crc32=0,
        provenance={},
    )


def spread(folder: Path, table: Any, pieces: int, seed: int) -> list[ShardLine]:
    """Scatter the rows of a table over shards."""
    owner = np.random.default_rng(seed).integers(0, pieces, len(table))
    parts = [np.flatnonzero(owner == p) for p in range(pieces)]
    return [shard(folder, f"{i}.h5", r, table[r]) for i, r in enumerate(parts) if len(r)]


@settings(max_examples=20, deadline=None)
@given(data=st.data(), n=st.integers(1, 40), pieces=st.integers(1, 5), seed=st.integers(0, 99))
def test_gather_equals_fancy_indexing(data: Any, n: int, pieces: int, seed: int) -> None:
    table = np.random.default_rng(seed).standard_normal((n, 2, 3)).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        reader = ShardRows(Path(folder), spread(Path(folder), table, pieces, seed), n)
        chosen = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=50)), dtype=np.int64)
        for rows in (chosen, np.sort(chosen), np.arange(n)):
            np.testing.assert_array_equal(reader.gather(rows), table[rows])
    assert reader.shape == (2, 3)
    assert reader.present().all()


@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_and_back(rows: set[int]) -> None:
    array = np.array(sorted(rows), dtype=np.int64)
    ranges = ranges_of(array)
    assert all(a < b for a, b in ranges)
    assert all(b < c for (_, b), (c, _) in pairwise(ranges))
    assert sorted({r for a, b in ranges for r in range(a, b)}) == array.tolist()


def test_take_gives_half_floats_of_its_own(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float16).reshape(6, 2)
    reader = ShardRows(tmp_path, [shard(tmp_path, "a.h5", np.arange(6), table)], 6)
    taken = reader.take(np.array([5, 0]))
    assert taken.dtype == torch.float16
    taken.zero_()
    np.testing.assert_array_equal(reader.gather(np.array([5, 0])), table[[5, 0]])


def test_a_later_shard_wins_and_clears_what_was_bad(tmp_path: Path) -> None:
    rows = np.array([1, 2, 4], dtype=np.int64)
    old = shard(tmp_path, "a.h5", rows, np.ones((3, 2), np.float16), bad=(0, 2))
    new = shard(tmp_path, "b.h5", rows[:2], np.full((2, 2), 7, np.float16))
    reader = ShardRows(tmp_path, [old, new], 6)
    assert reader.present().tolist() == [False, True, True, False, True, False]
    assert reader.bad().tolist() == [False, False, False, False, True, False]
    assert reader.bad_rows().tolist() == [4]
    assert reader.gather(rows)[:, 0].tolist() == [7, 7, 1]
    assert count_rows([old, new]) == 3


def test_more_shards_than_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAPS", 2)
    table = np.arange(40, dtype=np.float16).reshape(20, 2)
    lines = [
        shard(tmp_path, f"{i}.h5", np.arange(i, i + 2), table[i : i + 2]) for i in range(0, 20, 2)
    ]
    reader = ShardRows(tmp_path, lines, 20)
    for _ in range(3):
        np.testing.assert_array_equal(reader.gather(np.arange(20)[::-1].copy()), table[::-1])


def test_missing_rows_are_named(tmp_path: Path) -> None:
    line = shard(tmp_path, "a.h5", np.arange(2), np.ones((2, 2), np.float16))
    with pytest.raises(MissingComponentError, match="lacks row 3"):
        ShardRows(tmp_path, [line], 5).gather(np.array([1, 3]))


def test_two_widths_and_unknown_rows_are_refused(tmp_path: Path) -> None:
    narrow = shard(tmp_path, "a.h5", np.arange(2), np.ones((2, 2), np.float16))
    wide = shard(tmp_path, "b.h5", np.arange(2, 4), np.ones((2, 3), np.float16))
    with pytest.raises(CorruptCacheError, match=r"rows \[3\] of float16, earlier shards \[2\]"):
        ShardRows(tmp_path, [narrow, wide], 4)
    with pytest.raises(CorruptCacheError, match="has row 1, but the listing has 1"):
        ShardRows(tmp_path, [narrow], 1)


@given(data=st.data(), n=st.integers(1, 60), pieces=st.integers(1, 8))
def test_overlapping_shards_equal_a_table_row_by_row(data: Any, n: int, pieces: int) -> None:
    folder = Path("nowhere")
    facts = ShardFacts(offset=0, shape=(1, 2), dtype="float16", bytes=9, crc32=0, sha256="")
    lines: list[ShardLine] = []
    owner: dict[int, tuple[int, int, bool]] = {}
    for number in range(pieces):
        rows = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
        bad = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1))))
        owner |= {int(r): (number, i, i in bad) for i, r in enumerate(rows)}
        lines.append(
            ShardLine(
                component="global",
                file=f"{number}.h5",
                rows=ranges_of(rows),
                bad=tuple((b, "torn") for b in bad),
                facts=facts,
                images_crc32=0,
                provenance={},
            )
        )
    reader = ShardRows(folder, lines, n)
    shard, position = reader._ranges.find(np.arange(n))
    for row in range(n):
        number, place, torn = owner.get(row, (-1, 0, False))
        assert shard[row] == number
        assert number < 0 or position[row] == place
        assert reader.present()[row] == (number >= 0)
        assert reader.bad()[row] == torn


@given(st.sets(st.integers(0, 30), min_size=1), st.lists(st.sets(st.integers(0, 30), min_size=1)))
def test_covered_rows(wanted: set[int], shards: list[set[int]]) -> None:
    def ranges(rows: set[int]) -> Any:
        return ranges_of(np.array(sorted(rows), dtype=np.int64))

    held = [pair for shard in shards for pair in ranges(shard)]
    assert covers(held, ranges(wanted)) == (wanted <= set().union(*shards))


def test_nothing_is_allocated_before_the_shards_are_looked_at(tmp_path: Path) -> None:
    line = shard(tmp_path, "a.h5", np.arange(2), np.ones((2, 2), np.float16))
    facts = replace(line.facts, shape=(2, 1 << 40), bytes=1 << 45)
    with pytest.raises(CorruptCacheError, match="should have"):
        ShardRows(tmp_path, [replace(line, facts=facts)], 2).gather(np.arange(2))


def test_int8_rows_come_out_as_half_floats(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((9, 3, 16)).astype(np.float16)
    folder = tmp_path / "patches.clearclip.int8"
    folder.mkdir()
    lines = [
        shard(folder, "a.h5", np.arange(5), pack(table[:5])),
        shard(folder, "b.h5", np.arange(5, 9), pack(table[5:])),
    ]
    reader = ShardRows(folder, lines, 9)
    assert reader.shape == (3, 16)
    rows = np.array([8, 0, 3, 3, 5])
    taken = reader.take(rows)
    assert taken.dtype == torch.float16
    assert taken.shape == (5, 3, 16)
    np.testing.assert_array_equal(taken.numpy(), unpack(pack(table))[rows])
    assert reader.take(rows[:0]).shape == (0, 3, 16)
    narrow = [shard(folder, "c.h5", np.arange(2), np.ones((2, 4), np.int8))]
    with pytest.raises(CorruptCacheError, match="too narrow for a scale"):
        ShardRows(folder, narrow, 9)


def test_boxes_stay_whole_numbers(tmp_path: Path) -> None:
    boxes = np.arange(24, dtype=np.int32).reshape(3, 2, 4) * 1000
    reader = ShardRows(tmp_path, [shard(tmp_path, "a.h5", np.arange(3), boxes)], 3)
    taken = reader.take(np.array([2, 1]))
    assert taken.dtype == torch.int32
    np.testing.assert_array_equal(taken.numpy(), boxes[[2, 1]])


@pytest.mark.parametrize("component", ["global", "patches.clearclip"])
@pytest.mark.parametrize("link", ["shard", "folder"])
def test_links_are_refused(tmp_path: Path, component: str, link: str) -> None:
    folder = tmp_path / component
    folder.mkdir()
    line = shard(folder, "a.h5", np.arange(2), np.ones((2, 2), np.float16))
    moved = folder / "a.h5" if link == "shard" else folder
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        ShardRows(folder, [line], 2).gather(np.array([0]))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows are fetched, call by call; the disk reads nothing unless a test says so."""
    calls: list[int] = []

    def note(path: Path, facts: ShardFacts, position: Any, *, each: int) -> None:
        calls.append(len(position))
        fetch(path, facts, position, each=each)

    monkeypatch.setattr(checked, "fetch", note)
    monkeypatch.setattr(module, "disk_reads", lambda: 0)
    return calls


def patches(folder: Path, table: Any) -> ShardRows:
    (folder / "patches.clearclip").mkdir()
    line = shard(folder / "patches.clearclip", "a.h5", np.arange(len(table)), table)
    line = replace(line, component="patches.clearclip")
    return ShardRows(folder / "patches.clearclip", [line], len(table))


def test_rows_are_fetched_until_a_gather_needs_no_disk(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = np.arange(12, dtype=np.float16).reshape(6, 2)
    reader, rows = patches(tmp_path, table), np.array([5, 0, 3])
    blocks = iter(range(100))
    monkeypatch.setattr(module, "disk_reads", lambda: next(blocks))  # each gather reads one
    for _ in range(2):
        np.testing.assert_array_equal(reader.gather(rows), table[rows])
    assert asked == [3, 3]
    monkeypatch.setattr(module, "disk_reads", lambda: 0)
    for _ in range(3):
        np.testing.assert_array_equal(reader.gather(rows), table[rows])
    assert asked == [3, 3, 3]
    monkeypatch.setattr(module, "disk_reads", lambda: next(blocks))
    reader.gather(rows)
    reader.gather(rows)
    assert asked == [3, 3, 3, 3]


def test_what_was_read_whole_is_not_fetched(tmp_path: Path, asked: list[int]) -> None:
    table = np.arange(12, dtype=np.float16).reshape(6, 2)
    line = shard(tmp_path, "a.h5", np.arange(6), table)
    sums_path(tmp_path / "a.h5").unlink()
    ShardRows(tmp_path, [line], 6).gather(np.array([5, 0]))
    assert asked == []


@pytest.mark.parametrize("size", [0, 600, 9000])
def test_a_mapped_shard_of_another_size_is_an_error(tmp_path: Path, size: int) -> None:
    reader, rows = patches(tmp_path, np.ones((6, 2), np.float16)), np.array([5, 0])
    reader.gather(rows)
    os.truncate(tmp_path / "patches.clearclip" / "a.h5", size)
    with pytest.raises(CorruptCacheError, match=f"bytes, but it has {size}"):
        reader.gather(rows)


def test_a_mapped_shard_outlives_its_removal(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float16).reshape(6, 2)
    reader, rows = patches(tmp_path, table), np.array([5, 0])
    reader.gather(rows)
    reader._warm.clear()
    (tmp_path / "patches.clearclip" / "a.h5").unlink()
    np.testing.assert_array_equal(reader.gather(rows), table[rows])


@pytest.mark.parametrize("width", [2, WIDE])  # through the buffer, and row by row
def test_rows_of_more_shards_than_maps_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(module, "MAPS", 2)
    table = np.arange(20, dtype=np.float16).repeat(width).reshape(20, width)
    lines = spread(tmp_path, table, 7, 0)
    reader = ShardRows(tmp_path, lines, 20)
    rows = np.random.default_rng(1).integers(0, 20, 50)
    np.testing.assert_array_equal(reader.gather(rows), table[rows])
    assert len(reader._mapped) == 2


def test_first_gather_imports_no_masked_arrays(tmp_path: Path) -> None:
    """Which takes longer than the gather itself."""
    line = shard(tmp_path, "a.h5", np.arange(2), np.ones((2, 2), np.float16))
    code = (
        "import sys, pickle, numpy as np; from pathlib import Path;"
        "from featcache.store.rows import ShardRows;"
        "line = pickle.loads(bytes.fromhex(sys.argv[2]));"
        "ShardRows(Path(sys.argv[1]), [line], 2).gather(np.array([1, 0]));"
        "assert 'torch' not in sys.modules; assert 'numpy.ma' not in sys.modules"
    )
    call = [sys.executable, "-c", code, str(tmp_path), pickle.dumps(line).hex()]
    subprocess.run(call, check=True, cwd=Path(__file__).parents[3])
