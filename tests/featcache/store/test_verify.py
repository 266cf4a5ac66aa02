import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CorruptCacheError
from featcache.store.cache import Cache
from featcache.store.verify import repair, verify
from featcache.types import ComponentKey, TextBank

Make = Callable[..., Any]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_sound_cache_is_sound(cache: Cache, bank: TextBank) -> None:
    cache.put_text(bank)
    seen: list[tuple[str, int, int]] = []
    report = verify(cache.path, full=True, report=lambda *step: seen.append(step))
    assert report.is_sound
    assert report.shards == 3
    assert report.bytes == sum(p.stat().st_size for p in cache.path.glob("*/*.h5"))
    assert seen[-1] == ("verify", 3, 3)
    assert json.loads(json.dumps(report.to_json()))["sound"] is True


@pytest.mark.parametrize("position", [0, 100, 2048, -1])
@pytest.mark.parametrize("full", [False, True])
def test_one_flipped_byte_of_a_shard_is_found_and_repaired(
    cache: Cache, plain: ComponentKey, values: Make, position: int, full: bool
) -> None:
    path = cache.path / "global" / "00000005-00000010.h5"
    good = path.read_bytes()
    flip(path, position)
    [problem] = verify(cache.path, full=full).problems
    assert (problem.component, problem.file) == ("global", path.name)
    assert "crc32 differs" in problem.what
    assert "featcache repair" in problem.what
    assert repair(cache.path).is_sound
    opened = Cache.open(cache.path)
    missing = np.flatnonzero(~opened.covered("global"))[:5]
    assert missing.tolist() == [5, 6, 7, 8, 9]
    opened.append(plain, missing, values(missing), {})
    assert path.read_bytes() == good
    assert verify(cache.path, full=True).is_sound


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_truncated_and_deleted_shards_are_found(cache: Cache, damage: str) -> None:
    path = cache.path / "global" / "00000000-00000005.h5"
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-1])
    [problem] = verify(cache.path).problems
    assert "should have" in problem.what
    assert repair(cache.path).is_sound
    assert Cache.open(cache.path).covered("global").sum() == 5


def test_a_damaged_manifest_is_found_and_its_good_lines_are_kept(cache: Cache) -> None:
    path = cache.path / "manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1], lines[3], lines[2]]))
    [problem] = verify(cache.path).problems
    assert "Line 3" in problem.what
    assert repair(cache.path).is_sound
    opened = Cache.open(cache.path)
    assert opened.covered("global").sum() == 5
    assert [p.name for p in opened.path.glob("global/*")] == ["00000000-00000005.h5"]


def test_a_damaged_header_cannot_be_repaired(cache: Cache) -> None:
    flip(cache.path / "manifest.jsonl", 3)
    assert not verify(cache.path).is_sound
    with pytest.raises(CorruptCacheError):
        repair(cache.path)


@pytest.mark.parametrize("file", ["strings.json", "rows.h5"])
def test_damaged_texts_are_found_and_repaired(cache: Cache, bank: TextBank, file: str) -> None:
    cache.put_text(bank)
    flip(next(cache.path.glob(f"text.*/{file}")), 40)
    assert len(verify(cache.path).problems) == 1
    assert repair(cache.path).is_sound
    opened = Cache.open(cache.path)
    assert opened.text() is None
    opened.put_text(bank)
    assert verify(cache.path, full=True).is_sound
    assert opened.text() is not None


def test_a_damaged_listing_is_found(cache: Cache) -> None:
    flip(next(cache.path.glob("listing/set-*/labels.npy")), -1)
    [problem] = verify(cache.path).problems
    assert "labels.npy" in problem.what


def test_two_widths_are_found(cache: Cache, values: Make) -> None:
    rows = np.arange(3)
    cache.append(ComponentKey(kind="patches", variant="vanilla"), rows, values(rows, width=4), {})
    [problem] = verify(cache.path).problems
    assert "different widths: 4, 8" in problem.what


def test_two_widths_under_one_name_are_found(
    cache: Cache, plain: ComponentKey, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "_check_rows", lambda *_: None)
    cache.append(plain, np.arange(10, 12), values([10, 11], width=4), {})
    assert any("earlier shards [8]" in p.what for p in verify(cache.path).problems)
