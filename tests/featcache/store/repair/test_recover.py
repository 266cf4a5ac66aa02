from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featcache.errors import CorruptCacheError
from featcache.store.cache import Cache
from featcache.store.format.identity import Identity
from featcache.store.format.records import PassLine, ShardLine, TextLine
from featcache.store.repair.recover import recover, restore
from featcache.store.repair.verify import repair, verify
from featcache.types import ComponentKey, FeatureKey, TextBank
from tests.featcache.store.repair.helpers import manifest, state

Make = Callable[..., Any]
HERE = {"featcache": "0", "crc": "01234567"}


@pytest.fixture
def whole(cache: Cache, plain: ComponentKey, values: Make, bank: TextBank) -> Cache:
    """A cache whose manifest has eight lines: a bad row, its mending, texts, two passes."""
    rows = np.arange(10, 20)
    cache.append(plain, rows, values(rows), {12: "is cut off"}, HERE)
    cache.append(plain, np.array([12]), values([12]), {}, HERE)
    cache.put_text(bank, HERE)
    cache.finish(components=["global"], images=20, seconds=1.0, complete=True)
    return Cache.open(cache.path)


def is_restored(cache: Cache, before: Any) -> bool:
    with pytest.raises(CorruptCacheError, match="featcache repair"):
        Cache.open(cache.path)
    report = repair(cache.path)
    assert report.is_sound
    assert report.dropped == ()
    return bool(state(cache) == before)


def test_a_flipped_byte_anywhere_in_the_manifest_loses_no_shard(whole: Cache) -> None:
    path, before, data = manifest(whole), state(whole), manifest(whole).read_bytes()
    ends = [i for i, byte in enumerate(data) if byte == ord("\n")]
    for position in {
        *range(0, len(data), 613),
        *ends,
        *(e - 9 for e in ends[::2]),
        ends[1] + 1,
    }:
        broken = bytearray(data)
        broken[position] ^= 1
        path.write_bytes(broken)
        assert is_restored(whole, before), position
        passes = sum(isinstance(line, PassLine) for line in Cache.open(whole.path).passes)
        line = data[:position].count(b"\n") + 1
        assert passes == (1 if line in (4, 8) and position not in ends else 2)


def test_only_the_damaged_line_is_lost(whole: Cache) -> None:
    data = manifest(whole).read_bytes()
    identity = Identity(whole.dataset, whole.backbone, whole.key)
    lines = data.splitlines(keepends=True)
    kinds = [type(line) for line in recover(data, identity).lines]
    assert kinds == [ShardLine, ShardLine, PassLine, ShardLine, ShardLine, TextLine, PassLine]
    for number in range(1, len(lines)):
        broken = [*lines]
        broken[number] = lines[number].replace(b'"component', b'"somponent')
        remains = recover(b"".join(broken), identity)
        assert (len(remains.lines), remains.lost) == (6, 1)
        broken[number] = lines[number][:-4] + b'z"}\n'
        assert len(recover(b"".join(broken), identity).lines) == 6


@pytest.mark.long
def test_swapped_repeated_missing_and_merged_lines_lose_no_shard(whole: Cache) -> None:
    path, before = manifest(whole), state(whole)
    lines = path.read_bytes().splitlines(keepends=True)
    n = len(lines)
    swaps = [[*range(i), i + 1, i, *range(i + 2, n)] for i in range(1, n - 1)]
    repeats = [[*range(i), i, i, *range(i + 1, n)] for i in range(1, n)]
    missing = [[*range(i), *range(i + 1, n)] for i in range(1, n - 1)]
    for order in [*swaps, *repeats[::2], *missing[1::2], list(range(n))[::-1], [0, *range(n)]]:
        path.write_bytes(b"".join(lines[i] for i in order))
        assert is_restored(whole, before), order
    for i in range(1, n - 1):
        merged = b"".join(lines[:i])[:-1] + b"\x0b" + b"".join(lines[i:])
        path.write_bytes(merged)
        assert is_restored(whole, before), i
        assert len(Cache.open(whole.path).passes) == 2
        half = len(lines[i]) // 2
        path.write_bytes(b"".join(lines[:i]) + lines[i][:half] + b"".join(lines[i + 1 :]))
        assert is_restored(whole, before), i


@pytest.mark.parametrize("content", [None, b"", b"\n", b"noise" * 9])
def test_a_manifest_that_is_gone_is_written_again_from_the_shards(
    whole: Cache, content: bytes | None
) -> None:
    path, before = manifest(whole), state(whole)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert is_restored(whole, before)


def test_lines_cut_off_at_the_end_come_back_byte_for_byte(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    for first in (10, 15):
        rows = np.arange(first, first + 5)
        cache.append(plain, rows, values(rows), {first + 1: "is cut off"}, HERE)
    path = manifest(cache)
    data = path.read_bytes()
    path.write_bytes(b"".join(data.splitlines(keepends=True)[:-2]))
    opened = Cache.open(cache.path)
    assert opened.covered("global").sum() == 10
    with opened.lock():
        assert opened.covered("global").all()
    assert path.read_bytes() == data
    assert [note[:15] for note in opened.notes] == ["Took up 2 files"]


def test_a_crash_between_the_shard_and_its_line_loses_nothing(
    cache: Cache, plain: ComponentKey, values: Make, bank: TextBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(10, 20)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with cache.lock(), monkeypatch.context() as patch:
        patch.setattr("featcache.store.format.manifest.Manifest.append", die)
        with pytest.raises(KeyboardInterrupt):
            cache.append(plain, rows, values(rows), {}, HERE)
        with pytest.raises(KeyboardInterrupt):
            cache.put_text(bank, HERE)
    opened = Cache.open(cache.path)
    with opened.lock():
        pass
    assert opened.covered("global").all()
    assert opened.text() is not None
    assert opened.shards["global"][-1].provenance == HERE
    assert verify(cache.path, full=True).is_sound


def test_key_and_header_restore_each_other(whole: Cache) -> None:
    key_file, path, before = whole.path / "key.json", manifest(whole), state(whole)
    line, data = key_file.read_bytes(), path.read_bytes()
    for position in (0, 3, len(line) // 2, len(line) - 3, len(line) - 1):
        broken = bytearray(line)
        broken[position] ^= 1
        key_file.write_bytes(broken)
        assert is_restored(whole, before)
        assert key_file.read_bytes() == line
        assert path.read_bytes() == data
        path.write_bytes(broken + data[len(line) :])
        assert is_restored(whole, before)
        assert path.read_bytes() == data
    key_file.unlink()
    assert is_restored(whole, before)
    for content in (line[:-9], b""):
        key_file.write_bytes(content)
        path.write_bytes(b"x" + data)
        with pytest.raises(CorruptCacheError, match=r"is lost.*featcache rm"):
            repair(whole.path)


def test_a_manifest_of_another_cache_is_put_aside(
    cache: Cache, key: FeatureKey, listing: Make, plain: ComponentKey, values: Make
) -> None:
    other = Cache.create(cache.path.parents[1], "others", "Toy/1", key)
    other.put_listing(listing(20))
    rows = np.arange(5)
    other.append(plain, rows, values(rows) + 1, {}, HERE)
    before = state(cache) if cache.covered("global").all() else cache.covered("global").tolist()
    manifest(cache).write_bytes(manifest(other).read_bytes())
    assert repair(cache.path).is_sound
    assert Cache.open(cache.path).dataset == "toys"
    assert Cache.open(cache.path).covered("global").tolist() == before
    # In a folder of another name nothing says which of the two is right.
    moved = cache.path.rename(cache.path.with_name("moved"))
    (moved / "manifest.jsonl").write_bytes(manifest(other).read_bytes())
    with pytest.raises(CorruptCacheError, match="belong to different caches"):
        restore(moved)


def test_texts_that_were_current_stay_current(cache: Cache, bank: TextBank) -> None:
    other = TextBank(
        classes=bank.classes, names=bank.names, templates=(), template_rows=None, default="name"
    )
    cache.put_text(other, HERE)
    cache.put_text(bank, HERE)
    lines = manifest(cache).read_bytes().splitlines(keepends=True)
    before = Cache.open(cache.path).text_line
    for lost in (len(lines) - 2, len(lines) - 1):
        broken = [*lines]
        broken[lost] = lines[lost].replace(b"component", b"somponent")
        manifest(cache).write_bytes(b"".join(broken))
        assert repair(cache.path).is_sound
        opened = Cache.open(cache.path)
        assert len(opened.texts) == 2
        assert opened.text_line == before


def test_a_lost_row_is_not_forgotten_with_a_damaged_manifest(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    cache.drop("global", "00000005-00000010.h5")
    data = manifest(cache).read_bytes()
    for _ in range(2):
        manifest(cache).write_bytes(data.replace(b'"kind":"pass"', b'"kind":"pasS"'))
        assert repair(cache.path).is_sound
        opened = Cache.open(cache.path)
        [rows] = opened.lost()["global"]
        assert rows.tolist() == [5, 6, 7, 8, 9]
        data = manifest(cache).read_bytes()
    opened.append(plain, rows, values(rows), {}, HERE)
    manifest(cache).write_bytes(b"x" + manifest(cache).read_bytes())
    assert repair(cache.path).is_sound
    assert b'"drop"' not in manifest(cache).read_bytes()
    assert Cache.open(cache.path).covered("global").sum() == 10


def test_a_whole_cache_whose_passes_are_lost_is_finished(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    manifest(cache).write_bytes(b"")
    repair(cache.path)
    assert Cache.open(cache.path).passes == []
    rows = np.arange(10, 20)
    Cache.open(cache.path).append(plain, rows, values(rows), {}, HERE)
    manifest(cache).write_bytes(b"")
    for _ in range(2):
        assert repair(cache.path).is_sound
        [one] = Cache.open(cache.path).passes
        newest = max(p.stat().st_mtime for p in cache.path.glob("global/*.h5"))
        assert (one.time, one.components, one.images, one.complete) == (
            newest, ("global",), 20, True,
        )  # fmt: skip
