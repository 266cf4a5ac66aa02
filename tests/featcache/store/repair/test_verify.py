import errno
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store.cache import Cache
from featcache.store.format import files, scan, shard
from featcache.store.format import header as block
from featcache.store.format.identity import Identity
from featcache.store.format.manifest import write_manifest
from featcache.store.format.records import DropLine, Line
from featcache.store.listing import files as listing_files
from featcache.store.listing.listing import write_listing
from featcache.store.lock import writer_lock
from featcache.store.repair.verify import Dropped, repair, verify
from featcache.types import ComponentKey, TextBank
from tests.tiers import quick

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
    assert "crc32 differs" in str(problem)
    assert "featcache repair" in str(problem)
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
    assert "should have" in str(problem)
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


@pytest.mark.long
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
    assert "labels.npy" in str(verify(cache.path).problems[0])
    report = repair(cache.path)
    assert report.is_sound
    assert any("from their copies" in str(note) for note in report.notes)


def test_an_unfinished_last_line_is_a_problem_unless_somebody_writes(cache: Cache) -> None:
    with (cache.path / "manifest.jsonl").open("ab") as file:
        file.write(b'{"kind":"sha')
    assert Cache.open(cache.path).covered("global").sum() == 10
    [problem] = verify(cache.path).problems
    assert "unfinished" in str(problem)
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
    assert [Path(str(note).split()[0]).name for note in report.notes] == ["notes.txt", "a"]
    for i in range(30):
        (cache.path / "somewhere" / f"b{i}").touch()
    assert verify(cache.path).notes[-1] == "12 more files are in no line of the manifest."


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
    assert "different widths: 4, 8" in str(problem)


def test_two_widths_under_one_name_are_found(
    cache: Cache, plain: ComponentKey, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.store.cache.check_width", lambda *_: None)
    cache.append(plain, np.arange(10, 12), values([10, 11], width=4), {}, HERE)
    assert any("earlier shards [8]" in str(p) for p in verify(cache.path).problems)


def test_a_listing_of_other_images_shows(cache: Cache) -> None:
    listing = cache.listing()
    assert listing is not None
    swapped = (listing.hashes[1], listing.hashes[0], *listing.hashes[2:])
    write_listing(cache.path / "listing", replace(listing, hashes=swapped))
    report = verify(cache.path)
    assert not report.is_sound
    assert all("made of other images than the listing names" in str(p) for p in report.problems)


@pytest.mark.parametrize(
    ("code", "why", "cure"),
    [
        (errno.EIO, os.strerror(errno.EIO), "Make it readable"),
        (errno.EACCES, os.strerror(errno.EACCES), "Make it readable"),
        (errno.EMFILE, "Too many files are open", "ulimit -n"),
    ],
)
@pytest.mark.parametrize("name", quick(["00000000-00000005.h5", "rows.h5", "strings.json"], 1))
def test_what_could_not_be_read_is_kept(
    cache: Cache,
    bank: TextBank,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    why: str,
    cure: str,
    name: str,
) -> None:
    cache.put_text(bank, HERE)
    before = {p: p.read_bytes() for p in cache.path.glob("*/*") if p.is_file()}
    real = files.open_plain

    def open_plain(path: Path) -> int:
        if path.name == name:
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    with monkeypatch.context() as patch:
        for module in (files, scan, shard, block):
            patch.setattr(module, "open_plain", open_plain)
        for look in (verify, repair):
            [problem] = look(cache.path).problems
            assert problem.file in (name, "rows.h5")
            assert "could not be read" in str(problem)
            assert why in str(problem)
            assert cure in str(problem)
    assert {p: p.read_bytes() for p in before} == before
    assert verify(cache.path).is_sound


def test_a_read_that_failed_once_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.open_plain
    failed: list[Path] = []

    def open_plain(path: Path) -> int:
        if not failed and path.suffix == ".h5":
            failed.append(path)
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(scan, "open_plain", open_plain)
    report = repair(cache.path, workers=1)
    assert [p.file for p in report.problems] == [failed[0].name]
    assert report.dropped == ()
    assert repair(cache.path).is_sound


@pytest.mark.parametrize("what", ["global/00000005-00000010.h5", "global"])
def test_a_link_is_reported_and_not_dropped(cache: Cache, tmp_path: Path, what: str) -> None:
    path = cache.path / what
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    for look in (verify, repair):
        report = look(cache.path)
        assert len(report.problems) == (1 if "/" in what else 2)
        assert all("is a symbolic link" in str(p) for p in report.problems)
        assert report.dropped == ()
    path.unlink()
    (tmp_path / "aside").rename(path)
    assert verify(cache.path, full=True).is_sound


def test_what_was_lost_is_known_until_it_is_encoded(
    cache: Cache, plain: ComponentKey, values: Make, listing: Make
) -> None:
    flip(cache.path / "global" / "00000005-00000010.h5", 600)
    for _ in range(2):
        assert repair(cache.path).is_sound
        [problem] = verify(cache.path).problems
        assert str(problem).startswith(f"5 rows of {cache.path / 'global'} were lost to damage")
        assert "featcache repair" in str(problem)
    opened = Cache.open(cache.path)
    assert {k: [r.tolist() for r in v] for k, v in opened.lost().items()} == {
        "global": [[5, 6, 7, 8, 9]]
    }
    opened.append(plain, np.array([5, 7]), values([5, 7]), {}, HERE)
    assert opened.lost()["global"][0].tolist() == [6, 8, 9]
    splits = {"train": np.array([0, 1, 9, 6])}
    opened.put_listing(listing(20, splits=splits))  # the image of row 8 is gone
    assert opened.lost()["global"][0].tolist() == [6, 9]
    opened.append(plain, np.array([6, 9]), values([6, 9]), {}, HERE)
    assert opened.lost() == {}
    assert verify(cache.path, full=True).is_sound


def test_every_lost_row_is_named_once_and_none_beyond_the_listing(cache: Cache) -> None:
    identity = Identity(cache.dataset, cache.backbone, cache.key)
    drops = [
        DropLine(component="global", file="00000005-00000010.h5", rows=((4, 8),)),
        DropLine(component="global", file="00000005-00000010.h5", rows=((4, 6), (7, 9))),
        DropLine(component="views.rrc50-2", file="00000005-00000010.h5", rows=((18, 1 << 40),)),
    ]
    lines: list[Line] = [*cache.shards["global"][:1], *drops]
    write_manifest(cache.path / "manifest.jsonl", identity, lines)
    tracemalloc.start()
    lost = Cache.open(cache.path).lost()
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert [rows.tolist() for rows in lost["global"]] == [[5, 6, 7], [8]]
    assert [rows.tolist() for rows in lost["views.rrc50-2"]] == [[18, 19]]


def test_a_kill_between_the_pointers_of_a_listing_is_no_damage(
    cache: Cache, listing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write_atomically

    def write(path: Path, *parts: bytes) -> None:
        if path.name == "current.json":
            raise KeyboardInterrupt
        real(path, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(listing_files, "write_atomically", write)
        with pytest.raises(KeyboardInterrupt):
            cache.put_listing(listing(30))
    report = verify(cache.path)
    assert report.is_sound
    assert any("stopped while it replaced the listing" in str(note) for note in report.notes)
    flip(sorted(cache.path.glob("listing/set-*/labels.npy"))[0], -1)
    assert not verify(cache.path).is_sound
    assert repair(cache.path).is_sound
    Cache.open(cache.path).put_listing(listing(30))
    assert verify(cache.path).notes == ()
