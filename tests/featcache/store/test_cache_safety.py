"""A cache survives kills, full disks and links, and refuses what is not a cache."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import (
    CacheError,
    CacheNotFoundError,
    CorruptCacheError,
    NewerFormatError,
    UsageError,
)
from featcache.store.cache import Cache
from featcache.store.format.files import make_folder
from featcache.store.format.seal import seal, unseal
from featcache.types import ComponentKey, FeatureKey
from tests.featcache.store.helpers import files

Make = Callable[..., Any]
HERE = {"featcache": "0", "device": "cpu"}


def test_links_that_lead_out_of_a_cache_are_refused(
    cache: Cache, plain: ComponentKey, values: Make, tmp_path: Path
) -> None:
    """A cache from a stranger must not read, or write, anywhere else."""
    elsewhere = tmp_path / "elsewhere"
    (cache.path / "global").rename(elsewhere)
    (cache.path / "global").symlink_to(elsewhere)
    before = {p.name: p.read_bytes() for p in elsewhere.iterdir()}
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        Cache.open(cache.path).feature_set().rows("global", np.array([1]))
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        cache.append(plain, np.array([10]), values([10]), {}, HERE)
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        cache.drop("global", "00000000-00000005.h5")
    assert {p.name: p.read_bytes() for p in elsewhere.iterdir()} == before
    for name in ("key.json", "manifest.jsonl"):
        path = cache.path / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        with pytest.raises(CorruptCacheError, match=rf"{name} is a symbolic link"):
            Cache.open(cache.path)
        path.unlink()
        (tmp_path / name).rename(path)
    (cache.path / "key.json").unlink()
    os.mkfifo(cache.path / "key.json")
    with pytest.raises(CorruptCacheError, match="no plain file"):
        Cache.open(cache.path)


def test_the_lock_file_is_no_way_out_either(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (cache.path / ".lock").unlink()
    (cache.path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(CacheError), cache.lock():
        pass
    assert (tmp_path / "mine").read_text() == "precious"


def test_files_that_are_read_whole_have_a_limit(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATCACHE_MAX_METADATA", "1000")
    with pytest.raises(CacheError, match=r"manifest\.jsonl has .*FEATCACHE_MAX_METADATA"):
        Cache.open(cache.path)
    monkeypatch.setenv("FEATCACHE_MAX_METADATA", "lots")
    with pytest.raises(UsageError, match="number of bytes, got 'lots'"):
        Cache.open(cache.path)


def test_leftovers_are_cleaned_by_the_next_writer_only(cache: Cache) -> None:
    (cache.path / "global" / ".x.h5.tmp-1-ab").write_bytes(b"half")
    (cache.path / "global" / "00000010-00000015.h5").write_bytes(b"whole, but never entered")
    (cache.path / "global" / "notes.h5").write_bytes(b"somebody's own")
    with (cache.path / "manifest.jsonl").open("ab") as file:
        file.write(b'{"kind":"sha')
    before = files(cache)
    reader = Cache.open(cache.path)
    assert reader.covered("global").sum() == 10
    assert files(cache) == before
    with reader.lock():
        pass
    assert sorted(p.name for p in cache.path.glob("global/*")) == [
        "00000000-00000005.h5",
        "00000000-00000005.sums",
        "00000005-00000010.h5",
        "00000005-00000010.sums",
        "00000010-00000015.h5",  # for all that one knows somebody's own
        "notes.h5",
    ]
    assert any("Left " in note and "00000010" in note for note in reader.notes)
    assert (cache.path / "manifest.jsonl").read_bytes().endswith(b"}\n")
    assert any("unfinished last line" in note for note in reader.notes)


def test_a_full_disk_loses_nothing_that_was_finished(
    cache: Cache, plain: ComponentKey, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, before = np.arange(10, 20), files(cache)
    real, budget = os.write, [0]

    def write(handle: int, data: Any) -> int:
        count = min(len(data), budget[0])
        if not count:
            raise OSError(28, "No space left on device")
        budget[0] -= count
        return real(handle, data[:count])

    said: list[str] = []
    with cache.lock():
        for space in range(0, 100_000, 130):
            try:
                with monkeypatch.context() as patch:
                    patch.setattr(os, "write", write)
                    budget[0] = space
                    cache.append(plain, rows, values(rows), {}, HERE)
                break
            except CacheError as error:
                said.append(str(error))
            assert (cache.path / "manifest.jsonl").read_bytes() == before["manifest.jsonl"]
    assert len(said) > 10
    assert all("No space is left" in text for text in said)
    assert Cache.open(cache.path).covered("global").all()
    after = files(cache)
    assert all(after[name] == before[name] for name in before if name != "manifest.jsonl")


def test_read_only_caches_can_be_read(
    cache: Cache, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system")
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    features = Cache.open(cache.path).feature_set()
    assert features.rows("global", np.array([3])).numpy().tolist() == values([3]).tolist()
    with pytest.raises(CacheError, match=r"Read-only.*another folder with root"), cache.lock():
        pass


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_shard_stops_the_reader_with_a_cure(cache: Cache, damage: str) -> None:
    path = cache.path / "global" / "00000005-00000010.h5"
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-100])
    features = Cache.open(cache.path).feature_set()
    assert features.rows("global", np.array([1])).shape == (1, 8)
    with pytest.raises(CorruptCacheError, match=r"00000005.*featcache repair"):
        features.rows("global", np.array([6]))


def test_what_is_no_cache_is_refused(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(CacheNotFoundError, match=r"key\.json"):
        Cache.open(tmp_path)
    key_file = cache.path / "key.json"
    data = key_file.read_bytes()
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1
        key_file.write_bytes(broken)
        with pytest.raises(CorruptCacheError, match="featcache repair"):
            Cache.open(cache.path)
    value, _ = unseal(data[:-1])
    wrong: list[dict[str, object]] = [{"format": True}, {"dataset": 3}, {"key": {}}, {"more": 1}]
    for change in wrong:
        key_file.write_bytes(seal({**value, **change})[0])
        with pytest.raises(CorruptCacheError, match="featcache repair"):
            Cache.open(cache.path)
    key_file.write_bytes(seal({**value, "format": 3})[0])
    with pytest.raises(NewerFormatError, match="pip install --upgrade"):
        Cache.open(cache.path)
    key_file.write_bytes(b'{\n "format": 1,\n "dataset": "toys"\n}\n')
    with pytest.raises(CacheError, match=r"format 2 only.*featcache rm"):
        Cache.open(cache.path)


def test_a_creation_that_was_interrupted_is_finished(
    tmp_path: Path, key: FeatureKey, cache: Cache
) -> None:
    (cache.path / "key.json").unlink()
    with pytest.raises(CorruptCacheError, match=r"key\.json is missing.*featcache repair"):
        Cache.open(cache.path)
    again = Cache.create(cache.path.parents[1], "toys", "Toy/1", key)
    assert again.covered("global").sum() == 10


CHILD = """
import sys
from pathlib import Path
import numpy as np
from featcache.keys import ComponentKey
from featcache.store.cache import Cache
cache = Cache.open(Path(sys.argv[1]))
rows = np.arange(20)
with cache.lock():
    print("locked", flush=True)
    while True:
        cache.append(ComponentKey(kind="views", recipe="weak", count=1), rows,
                     np.ones((20, 1, 4096), np.float16), {}, {})
"""


def test_kill_9_in_mid_append_loses_at_most_one_shard(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(cache.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(CacheError, match=rf"pid {child.pid}\) is writing"), cache.lock():
        pass
    time.sleep(0.15)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = Cache.open(cache.path)
    with found.lock():
        entered = {line.file for line in found.shards.get("views.weak-1", ())}
        files = {p.name for p in found.path.glob("views.weak-1/*")}
        assert {name for name in files if name.endswith(".h5")} == entered
        assert {name.replace(".sums", ".h5") for name in files} == entered  # none of no shard
        rows = np.arange(10, 20)
        found.append(plain, rows, values(rows), {}, HERE)
    features = Cache.open(cache.path).feature_set()
    assert torch.equal(features.rows("global", rows), torch.from_numpy(values(rows)))
    if entered:
        assert bool((features.rows("views.weak-1", np.arange(20)) == 1).all())


def test_new_folders_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("featcache.store.format.files.sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 3
