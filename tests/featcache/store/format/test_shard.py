import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache.errors import CacheError, CorruptCacheError
from featcache.store.format import shard as module
from featcache.store.format.header import read_header
from featcache.store.format.scan import Checksums, checksums
from featcache.store.format.shard import ShardFacts, map_shard, write_shard


def independent_reader(path: Path) -> tuple[Any, dict[str, Any]]:
    """What somebody without this package would write to read a shard."""
    with h5py.File(path, "r", locking=False) as file:
        data = file["features"]
        return data[:], dict(data.attrs)


def toy(n: int = 6) -> Any:
    return np.random.default_rng(0).standard_normal((n, 3, 4)).astype(np.float16)


def test_other_tools_read_what_we_write_and_we_read_it_without_them(tmp_path: Path) -> None:
    values = toy()
    facts = write_shard(tmp_path / "a.h5", values, attributes={"component": "views"})
    rows, attributes = independent_reader(tmp_path / "a.h5")
    np.testing.assert_array_equal(rows, values)
    assert attributes == {"component": "views"}
    np.testing.assert_array_equal(map_shard(tmp_path / "a.h5", facts).values, values)
    data = (tmp_path / "a.h5").read_bytes()
    assert data[facts.offset : facts.offset + values.nbytes] == values.tobytes()
    assert checksums(tmp_path / "a.h5", sha256=True) == Checksums(
        facts.bytes, facts.crc32, facts.sha256, facts.crc32
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    facts = [write_shard(tmp_path / f"{i}.h5", toy(500)) for i in range(2)]
    assert facts[0] == facts[1]
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "1.h5").read_bytes()


def test_writing_through_the_map_does_not_reach_the_file(tmp_path: Path) -> None:
    facts = write_shard(tmp_path / "a.h5", toy())
    before = (tmp_path / "a.h5").read_bytes()
    map_shard(tmp_path / "a.h5", facts).values[:] = 0
    assert (tmp_path / "a.h5").read_bytes() == before


@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
def test_non_finite_values_are_refused_by_name(tmp_path: Path, poison: float) -> None:
    values = toy()
    values[4, 1, 2] = poison
    path = tmp_path / "global" / "a.h5"
    path.parent.mkdir()
    with pytest.raises(CacheError, match=r"'global'.*moth 4\.jpg"):
        write_shard(path, values, name_of="moth {}.jpg".format)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("values", [np.zeros((0, 3), np.float16), np.zeros((2, 3), np.int64)])
def test_what_is_no_row_is_refused(tmp_path: Path, values: Any) -> None:
    with pytest.raises(CacheError, match="float16 or float32 or int8 or int32"):
        write_shard(tmp_path / "a.h5", values)


def test_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "old.h5", toy())
    real = os.write

    def write(handle: int, data: Any) -> int:
        if len(data) > 64:
            return real(handle, data[:64])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(CacheError, match=r"No space is left to write .*a\.h5"):
        write_shard(tmp_path / "a.h5", toy())
    assert [p.name for p in tmp_path.iterdir()] == ["old.h5"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_read_only_folder_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CacheError, match=r"cannot be written.*another folder with root"):
        write_shard(tmp_path / "a.h5", toy())


@pytest.mark.parametrize("damage", ["shorter", "longer", "gone", "folder"])
def test_a_file_of_another_size_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.h5"
    facts = write_shard(path, toy())
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(data[:-1] if damage == "shorter" else data + b"\0")
    with pytest.raises(CorruptCacheError, match=f"should have {facts.bytes} bytes"):
        map_shard(path, facts)


def test_facts_that_lie_outside_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    facts = write_shard(path, toy())
    wrong: list[dict[str, Any]] = [
        {"offset": facts.bytes - 1},
        {"offset": -2},
        {"shape": (1 << 40, 4)},
        {"dtype": "object"},
    ]
    for change in wrong:
        fields = {name: getattr(facts, name) for name in ShardFacts.__dataclass_fields__}
        with pytest.raises(CorruptCacheError):
            map_shard(path, ShardFacts(**{**fields, **change}))


def test_reading_never_parses_hdf5(tmp_path: Path) -> None:
    """A header turned to noise stops h5py; the map does not look at it."""
    path = tmp_path / "a.h5"
    facts = write_shard(path, toy())
    data = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 0) * (facts.offset // 8) + data[facts.offset :])
    np.testing.assert_array_equal(map_shard(path, facts).values, toy())


@pytest.mark.parametrize("extra", [0, 400, 600, 5000])
def test_a_block_of_any_size_stands_in_front_and_hdf5_still_reads_it(
    tmp_path: Path, extra: int
) -> None:
    path = tmp_path / "a.h5"
    facts = write_shard(path, toy(), about={"kind": "shard", "note": "x" * extra})
    about, block = read_header(path)
    size = len(block)
    assert size >= 512 + extra // 512 * 512
    assert size.bit_count() == 1
    assert path.read_bytes()[size : size + 4] == b"\x89HDF"
    assert block.endswith(b" \n")
    assert about["offset"] == facts.offset
    assert about["bytes"] == facts.bytes == path.stat().st_size
    np.testing.assert_array_equal(independent_reader(path)[0], toy())
    np.testing.assert_array_equal(map_shard(path, facts).values, toy())
    found = checksums(path, sha256=False, skip=size)
    assert found.rest_crc32 == about["rest_crc32"] == zlib.crc32(path.read_bytes()[size:])


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    facts = write_shard(tmp_path / "real" / "a.h5", toy())
    (tmp_path / "b.h5").symlink_to(tmp_path / "real" / "a.h5")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    for path in (tmp_path / "b.h5", tmp_path / "linked" / "a.h5"):
        with pytest.raises(CorruptCacheError, match="symbolic link"):
            map_shard(path, facts)
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(CorruptCacheError, match="it is missing"):
        map_shard(tmp_path / "pipe.h5", facts)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no posix_fadvise")
def test_what_is_fetched_holds_the_rows_and_little_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, width = 200, module.GAP // 4
    facts = ShardFacts(
        offset=600,
        shape=(rows, width // 2),
        dtype="float16",
        bytes=600 + rows * width,
        crc32=0,
        sha256="",
    )
    with (tmp_path / "a.h5").open("wb") as file:
        file.truncate(facts.bytes)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, n, __: asked.append((start, n)))
    monkeypatch.setattr(os, "preadv", lambda *_: 0)  # as if a disk were needed
    position = np.array([150, 7, 8, 12, 150, 0, 199])  # 8 and 12 lie less than a gap apart
    module.fetch(tmp_path / "a.h5", facts, position)
    place = [(600 + a * width, (b - a) * width) for a, b in ((0, 1), (7, 13), (150, 151))]
    assert asked == [*place, (600 + 199 * width, width)]
    module.fetch(tmp_path / "gone.h5", facts, position)  # advice, and no more
    assert len(asked) == 4
    module.fetch(tmp_path / "a.h5", facts, position[:3], each=4)  # whole blocks of four rows
    assert asked[4:] == [(600 + 4 * width, 12 * width - 4 * width), (600 + 148 * width, 4 * width)]


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system does not tell")
def test_what_is_in_memory_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    facts = write_shard(path, toy())
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, n, __: asked.append((start, n)))

    def silent(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "the file system does not know")

    path.read_bytes()
    module.fetch(path, facts, np.array([2, 0]))
    in_memory = len(asked)
    monkeypatch.setattr(os, "preadv", silent)
    module.fetch(path, facts, np.array([2, 0]))
    assert in_memory == 0
    assert len(asked) == 1


def test_a_file_that_lost_bytes_is_not_whole(tmp_path: Path) -> None:
    facts = write_shard(tmp_path / "a.h5", toy())
    values = map_shard(tmp_path / "a.h5", facts).values
    assert module.is_whole(values, facts)
    os.truncate(tmp_path / "a.h5", facts.bytes - 1)
    assert not module.is_whole(values, facts)
