import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store.cache import Cache
from featcache.store.identity import Identity
from featcache.store.lock import writer_lock
from featcache.store.manifest import write_manifest
from featcache.store.verify import Dropped, repair, verify
from featcache.types import ComponentKey, TextBank

Make = Callable[..., Any]
HERE = {"featcache": "0", "device": "cpu"}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_sound_cache_is_sound(cache: Cache, bank: TextBank) -> None:
    cache.put_text(bank, HERE)
    seen: list[tuple[str, int, int]] = []
    report = verify(cache.path, full=True, report=lambda *step: seen.append(step))
    assert report.is_sound
    assert report.shards == 3
    assert report.bytes == sum(p.stat().st_size for p in cache.path.glob("*/*.h5"))
    assert seen[-1] == ("verify", 3, 3)
    assert report.notes == ()
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
    report = repair(cache.path)
    assert report.is_sound
    assert report.dropped == (Dropped(component="global", file=path.name, rows=((5, 10),)),)
    assert json.loads(json.dumps(report.to_json()))["dropped"][0]["rows"] == [[5, 10]]
    opened = Cache.open(cache.path)
    missing = np.flatnonzero(~opened.covered("global"))[:5]
    assert missing.tolist() == [5, 6, 7, 8, 9]
    opened.append(plain, missing, values(missing), {}, HERE)
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


@pytest.mark.parametrize("file", ["strings.json", "rows.h5"])
def test_damaged_texts_are_found_and_repaired(cache: Cache, bank: TextBank, file: str) -> None:
    cache.put_text(bank, HERE)
    flip(next(cache.path.glob(f"text.*/{file}")), 40)
    assert len(verify(cache.path).problems) == 1
    assert repair(cache.path).is_sound
    opened = Cache.open(cache.path)
    assert opened.text() is None
    opened.put_text(bank, HERE)
    assert verify(cache.path, full=True).is_sound
    assert opened.text() is not None


def test_any_changed_byte_of_any_file_is_found(cache: Cache, bank: TextBank) -> None:
    older = TextBank(
        classes=bank.classes, names=bank.names, templates=(), template_rows=None, default="name"
    )
    cache.put_text(older, HERE)
    cache.put_text(bank, HERE)
    files = [p for p in cache.path.rglob("*") if p.is_file() and p.stat().st_size]
    assert len(files) >= 8
    for path in files:
        size = path.stat().st_size
        for position in {0, size // 3, size - 1}:
            flip(path, position)
            assert not verify(cache.path).is_sound, (path, position)
            flip(path, position)
        data = path.read_bytes()
        for changed in (data + b"\n", data[:-1]):
            path.write_bytes(changed)
            assert not verify(cache.path).is_sound, (path, len(changed))
        path.write_bytes(data)
    assert verify(cache.path).is_sound


def test_a_damaged_listing_is_found_and_restored(cache: Cache) -> None:
    flip(next(cache.path.glob("listing/set-*/labels.npy")), -1)
    assert "labels.npy" in verify(cache.path).problems[0].what
    report = repair(cache.path)
    assert report.is_sound
    assert any("from their copies" in note for note in report.notes)


def test_an_unfinished_last_line_is_a_problem_unless_somebody_writes(cache: Cache) -> None:
    with (cache.path / "manifest.jsonl").open("ab") as file:
        file.write(b'{"kind":"sha')
    assert Cache.open(cache.path).covered("global").sum() == 10
    [problem] = verify(cache.path).problems
    assert "unfinished" in problem.what
    with writer_lock(cache.path, lambda _: None):
        assert verify(cache.path).is_sound
    assert repair(cache.path).is_sound
    assert verify(cache.path).notes == ()


def test_files_that_belong_to_nothing_are_noted(cache: Cache) -> None:
    (cache.path / "global" / "notes.txt").write_text("mine")
    (cache.path / "somewhere").mkdir()
    (cache.path / "somewhere" / "a").touch()
    report = verify(cache.path)
    assert report.is_sound
    assert [Path(note.split()[0]).name for note in report.notes] == ["notes.txt", "a"]
    for i in range(30):
        (cache.path / "somewhere" / f"b{i}").touch()
    assert verify(cache.path).notes[-1] == "12 more files belong to nothing in this cache."


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_threads_finds_the_same(cache: Cache, workers: int) -> None:
    flip(cache.path / "global" / "00000000-00000005.h5", 600)
    seen: list[int] = []
    report = verify(cache.path, workers=workers, report=lambda _, done, total: seen.append(done))
    assert [p.file for p in report.problems] == ["00000000-00000005.h5"]
    assert seen == [1, 2]


def test_what_a_stranger_wrote_allocates_nothing(cache: Cache) -> None:
    """A line that speaks of 2^40 rows, in a cache that has no listing to compare them with."""
    [first, _] = cache.shards["global"]
    far = replace(first, file="00000000-00000006.h5", rows=((1 << 39, (1 << 39) + 5),))
    identity = Identity(cache.dataset, cache.backbone, cache.key)
    write_manifest(cache.path / "manifest.jsonl", identity, [far])
    shutil.rmtree(cache.path / "listing")
    tracemalloc.start()
    assert not verify(cache.path).is_sound
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_boxes_and_packed_rows_are_as_wide_as_they_like(cache: Cache) -> None:
    rows = np.arange(3)
    boxes = ComponentKey(kind="boxes", recipe="lazsl", count=2)
    packed = ComponentKey(kind="patches", variant="vanilla", dtype="int8")
    cache.append(boxes, rows, np.zeros((3, 2, 4), np.int32), {}, HERE)
    cache.append(packed, rows, np.zeros((3, 2, 12), np.int8), {}, HERE)
    assert verify(cache.path).is_sound


def test_two_widths_are_found(cache: Cache, values: Make) -> None:
    rows = np.arange(3)
    cache.append(
        ComponentKey(kind="patches", variant="vanilla"), rows, values(rows, width=4), {}, HERE
    )
    [problem] = verify(cache.path).problems
    assert "different widths: 4, 8" in problem.what


def test_two_widths_under_one_name_are_found(
    cache: Cache, plain: ComponentKey, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "_check_width", lambda *_: None)
    cache.append(plain, np.arange(10, 12), values([10, 11], width=4), {}, HERE)
    assert any("earlier shards [8]" in p.what for p in verify(cache.path).problems)
