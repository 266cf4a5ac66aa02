"""Whatever is read was compared with what was written: rows, their order, whose images they are."""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import CorruptCacheError
from featcache.quantise import pack
from featcache.store import append, checked
from featcache.store import rows as rows_module
from featcache.store.cache import Cache
from featcache.store.format import checksums as sums
from featcache.store.format.checksums import read_sums, sums_of, sums_path, write_sums
from featcache.store.format.identity import Identity
from featcache.store.format.manifest import write_manifest
from featcache.store.format.records import ShardLine
from featcache.store.format.scan import checksums
from featcache.store.format.shard import write_shard
from featcache.store.listing.listing import write_listing
from featcache.store.repair.examine import add_sums
from featcache.store.repair.verify import repair, verify
from featcache.store.rows import ShardRows, ranges_of
from featcache.types import ComponentKey, FeatureKey, TextBank
from featcache.wording import in_python
from tests.featcache.store.conftest import HERE
from tests.featcache.store.conftest import _listing as make_listing
from tests.tiers import quick

Make = Callable[..., Any]
N = 12
KEYS = {
    "global": (ComponentKey(kind="global"), (8,)),
    "patches": (ComponentKey(kind="patches", variant="clearclip"), (400, 8)),
    "patches in eight bits": (ComponentKey(kind="patches", variant="v", dtype="int8"), (400, 8)),
    "views": (ComponentKey(kind="views", recipe="rrc50", count=3), (3, 8)),
    "crops": (ComponentKey(kind="crops", recipe="lazsl", count=4), (4, 8)),
    "view patches": (
        ComponentKey(kind="view_patches", variant="v", recipe="cdfsl", count=2), (2, 300, 8)),
    "boxes": (ComponentKey(kind="boxes", recipe="lazsl", count=4), (4, 4)),
}  # fmt: skip


def rows_of(key: ComponentKey, shape: tuple[int, ...], seed: int = 0) -> Any:
    values = np.random.default_rng(seed).standard_normal((N, *shape)).astype(np.float16)
    if key.dtype == "int8":
        return pack(values)
    return values if key.dtype == "float16" else (values * 100).astype(np.int32)


def make(root: Path, seed: int = 0) -> Cache:
    """Two shards of every kind of component."""
    key = FeatureKey(
        architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
    )
    cache = Cache.create(root, "toys", "Toy/1", key)
    hashes = tuple(f"{seed:02d}{i:062d}" for i in range(20))
    cache.put_listing(make_listing(20, hashes=hashes))
    for component, shape in KEYS.values():
        values = rows_of(component, shape, seed)
        for rows in (np.arange(7), np.arange(7, N)):
            cache.append(component, rows, values[rows], {}, HERE)
    return Cache.open(cache.path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("template")).path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """The same of other images."""
    return make(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def whole(tmp_path: Path, template: Path) -> Cache:
    path = tmp_path / template.parent.name / template.name
    shutil.copytree(template, path)
    return Cache.open(path)


def flip(path: Path, place: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= mask
    path.write_bytes(data)


def shard_of(cache: Cache, name: str) -> tuple[Path, ShardLine]:
    """Return the second shard of a component."""
    line = cache.shards[KEYS[name][0].folder][1]
    return cache.path / line.component / line.file, line


def read(path: Path, name: str, rows: Any = None) -> Any:
    """Read in a cache opened anew, as another process would."""
    wanted = np.arange(N) if rows is None else np.array(rows)
    return Cache.open(path).rows(KEYS[name][0].folder).gather(wanted)


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


@pytest.mark.parametrize("name", ["global", "patches"])
@pytest.mark.parametrize(
    "state", quick(["gone", "torn", "emptied", "flipped", "link", "pipe", "folder"], 3)
)
def test_checksums_of_no_use_are_as_good_as_none(whole: Cache, name: str, state: str) -> None:
    path, line = shard_of(whole, name)
    sound, beside = read(whole.path, name), sums_path(path)
    data = beside.read_bytes()
    if state in ("gone", "link", "pipe", "folder"):
        beside.unlink()
    match state:
        case "torn":
            beside.write_bytes(data[:-3])
        case "emptied":
            beside.write_bytes(b"")
        case "flipped":
            flip(beside, len(data) - 2)
        case "link":
            beside.symlink_to(whole.path / "key.json")
        case "pipe":
            os.mkfifo(beside)
        case "folder":
            beside.mkdir()
    np.testing.assert_array_equal(read(whole.path, name), sound)
    flip(path, line.facts.offset + 1)
    with pytest.raises(CorruptCacheError, match="its crc32 differs"):
        read(whole.path, name)
    flip(path, line.facts.offset + 1)
    report = verify(whole.path)
    if state == "gone":
        assert report.is_sound
        assert "1 of the shards" in str(report.notes[0])
        assert "have no checksums of their rows" in str(report.notes[0])
    else:
        [problem] = report.problems
        assert str(beside) in str(problem)
        assert "featcache repair" in str(problem)
    report = repair(whole.path)
    assert (report.problems, report.dropped) == ((), ())
    assert beside.read_bytes() == data
    assert not beside.is_symlink()


def test_every_byte_of_the_checksums_matters(whole: Cache) -> None:
    path, line = shard_of(whole, "patches")
    size = sums_path(path).stat().st_size
    for place in range(size):
        flip(sums_path(path), place, 1 + place % 255)
        assert read_sums(path, line.facts) is None
        flip(sums_path(path), place, 1 + place % 255)
    assert read_sums(path, line.facts) is not None


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


def test_checksums_that_bless_another_shard_are_found(whole: Cache) -> None:
    """Whole, of this shard by what they say, and yet wrong: only `verify` can tell."""
    path, line = shard_of(whole, "patches")
    values = rows_of(*KEYS["patches"])[:5]
    write_sums(path, line.facts, sums_of(values, line.facts))
    with pytest.raises(CorruptCacheError):
        read(whole.path, "patches")
    [problem] = verify(whole.path).problems
    assert problem.file == sums_path(path).name
    assert repair(whole.path).dropped == ()
    assert len(read(whole.path, "patches")) == N


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


def written_elsewhere(cache: Cache, name: str, change: Callable[[Any], None]) -> Path:
    """Change rows of a shard as another tool might have written them: all checksums are right."""
    path, line = shard_of(cache, name)
    data = bytearray(path.read_bytes())
    count = int(np.prod(line.facts.shape))
    change(
        np.frombuffer(data, line.facts.dtype, count, line.facts.offset).reshape(line.facts.shape)
    )
    path.write_bytes(data)
    sums_path(path).unlink()
    found = checksums(path, sha256=True)
    facts = replace(line.facts, crc32=found.crc32, sha256=found.sha256)
    lines = [
        replace(x, facts=facts) if x is line else x
        for every in cache.shards.values()
        for x in every
    ]
    identity = Identity(cache.dataset, cache.backbone, cache.key)
    write_manifest(cache.path / "manifest.jsonl", identity, lines)
    return path


def set_value(value: float) -> Callable[[Any], None]:
    def change(rows: Any) -> None:
        if rows.dtype == np.int8:
            rows[2, ..., -4:] = np.array([value], "<f4").view(np.int8)
        else:
            rows[2].flat[-1] = value

    return change


@pytest.mark.parametrize("value", quick([np.nan, -np.nan, np.inf, -np.inf], 1))
@pytest.mark.parametrize("name", [name for name in KEYS if name != "boxes"])
def test_rows_that_are_no_numbers_are_named(whole: Cache, name: str, value: float) -> None:
    path = written_elsewhere(whole, name, set_value(value))
    [problem] = verify(whole.path).problems
    said = "1 of its rows have values that are not finite (first: row 9, image train/ä 9"
    assert said in str(problem)
    assert (problem.component, problem.file) == (path.parent.name, path.name)
    assert len(read(whole.path, name, [0, 7, 8, 10])) == 4
    with pytest.raises(CorruptCacheError, match=r"not finite \(first: row 9 \(train/ä 9"):
        read(whole.path, name, [0, 9])
    opened = Cache.open(whole.path)
    with opened.lock():
        added = add_sums(opened)
    assert added.shards == 0
    assert "not finite" in in_python([added.damaged[0]])  # checksums say that numbers are good, too
    assert not sums_path(path).exists()
    assert repair(whole.path).dropped[0].file == path.name


def test_texts_that_are_no_numbers_are_named(cache: Cache, bank: TextBank) -> None:
    assert bank.description_rows is not None
    rows = bank.description_rows.clone()
    rows[1, 3] = float("nan")
    with mock.patch("featcache.store.format.shard.not_finite", return_value=np.empty(0)):
        cache.put_text(replace(bank, description_rows=rows), HERE)
    [problem] = verify(cache.path).problems
    assert "(first: text 7)" in str(problem)
    with pytest.raises(CorruptCacheError, match="not finite"):
        Cache.open(cache.path).text()


def test_numbers_at_the_edge_are_numbers(whole: Cache) -> None:
    largest = {"<f2": 65504.0, "<f4": float(np.finfo(np.float32).max)}
    for dtype, top in largest.items():
        values = np.array([[top, -top], [0.0, -0.0], [5.960464477539063e-08, -1.0]], dtype)
        facts = write_shard(whole.path / "x.h5", values)
        assert facts.shape == (3, 2)


def test_checksums_can_be_read_from_the_documentation(whole: Cache) -> None:
    """docs/cache-format.md, with nothing of ours."""
    for name in KEYS:
        path, line = shard_of(whole, name)
        data = sums_path(path).read_bytes()
        head, _, tail = data.partition(b"\n")
        said = json.loads(head)
        assert said["crc"] == f"{zlib.crc32(head[:-18] + b'}', zlib.crc32(b'00000000')):08x}"
        assert said["kind"] == "sums"
        facts = line.facts
        recorded = (facts.bytes, facts.crc32, facts.sha256)
        assert (said["bytes"], said["crc32"], said["sha256"]) == recorded
        assert said["sums_crc32"] == zlib.crc32(tail)
        width = int(np.prod(facts.shape[1:])) * np.dtype(facts.dtype).itemsize
        each = max(1, 4096 // width)
        assert said["rows_per_sum"] == each
        rows = path.read_bytes()[facts.offset :][: facts.shape[0] * width]
        blocks = [rows[at : at + each * width] for at in range(0, len(rows), each * width)]
        assert np.frombuffer(tail, "<u4").tolist() == [zlib.crc32(block) for block in blocks]


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


def test_a_writer_that_dies_before_the_checksums(
    cache: Cache, plain: ComponentKey, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(10, 15)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(append, "write_sums", die)
        with pytest.raises(KeyboardInterrupt):
            cache.append(plain, rows, values(rows), {}, HERE)
    opened = Cache.open(cache.path)
    with opened.lock():
        assert opened.covered("global").sum() == 15
        added = add_sums(opened)
    assert (added.shards, added.refused) == (1, [])
    report = verify(cache.path)
    assert (report.problems, report.notes) == ((), ())


def test_checksums_go_with_their_shard(cache: Cache, plain: ComponentKey, values: Make) -> None:
    first = cache.path / "global" / "00000000-00000005.h5"
    cache.drop("global", first.name)
    assert not sums_path(first).exists()
    second = cache.path / "global" / "00000005-00000010.h5"
    data, beside = second.read_bytes(), sums_path(second).read_bytes()
    cache.drop("global", second.name)
    second.write_bytes(data)  # a shard that was taken out, as an interrupted writer leaves it
    sums_path(second).write_bytes(beside)
    sums_path(first).write_bytes(beside)  # and checksums of none
    with Cache.open(cache.path).lock():
        pass
    assert list((cache.path / "global").iterdir()) == []
    again = Cache.open(cache.path)
    again.append(plain, np.arange(5, 10), values(np.arange(5, 10)), {}, HERE)
    assert (second.read_bytes(), sums_path(second).read_bytes()) == (data, beside)
