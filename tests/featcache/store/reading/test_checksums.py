"""The checksums beside a shard: of no use, of another, and written and removed with it."""

import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featcache.errors import CorruptCacheError
from featcache.store import append
from featcache.store.cache import Cache
from featcache.store.format.checksums import read_sums, sums_of, sums_path, write_sums
from featcache.store.repair.examine import add_sums
from featcache.store.repair.verify import repair, verify
from featcache.types import ComponentKey
from tests.featcache.store.conftest import HERE
from tests.featcache.store.reading.shards import KEYS, N, flip, read, rows_of, shard_of
from tests.tiers import quick

Make = Callable[..., Any]


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
