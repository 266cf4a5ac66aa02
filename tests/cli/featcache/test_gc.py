"""`featcache gc`: what nothing uses goes, and nothing that can be used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.store.format.checksums import SUFFIX
from featcache.store.lock import writer_lock

Run = Callable[..., Any]


@pytest.fixture
def root(full_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a home, to be littered."""
    home = tmp_path / "home"
    shutil.copytree(full_home, home)
    shutil.rmtree(home / "runs", ignore_errors=True)
    monkeypatch.setenv("FEATCACHE_HOME", str(home))
    return home


def cache_in(root: Path) -> Path:
    return next(root.glob("*/*/key.json")).parent


def found(featcache: Run, *more: str) -> list[dict[str, Any]]:
    answer = featcache("gc", "--json", *more)
    return [json.loads(line) for line in answer.out.splitlines()]


def files(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*") if path.name != ".lock"}


def test_a_clean_home_has_nothing(featcache: Run, root: Path) -> None:
    featcache("index", "build", "--quiet")
    before = files(root)
    answer = featcache("gc", "--yes")
    assert (answer.code, answer.out) == (0, "")
    assert files(root) == before


def test_nothing_is_deleted_without_yes_and_only_garbage_with_it(
    featcache: Run, heads: Run, root: Path
) -> None:
    assert heads("train", "gda", "--shots", "2", "--seeds", "1", "--quiet").code == 0
    before = files(root)
    cache = cache_in(root)
    run = next(root.glob("runs/*/*/*/result.json")).parent
    shutil.copytree(cache, cache.parent / f".{cache.name}.tmp-1-0a0a0a0a")
    shutil.copytree(run, run.with_name(f".{run.name}.tmp-0a0a0a0a"))
    (cache / "global" / ".x.h5.tmp-1-0a0a0a0a").write_bytes(b"12345")
    shard = next((cache / "global").glob("*.h5"))
    shutil.copy(shard.with_suffix(SUFFIX), shard.with_name("8" + shard.stem + SUFFIX))
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.with_name("9" + shard.name).write_bytes(bytes(damaged))
    littered = files(root)

    listed = found(featcache)
    kinds = " ".join(item["what"] for item in listed)
    for what in ("remains of a removed cache", "3 files that the cache", "remains of a run"):
        assert what in kinds
    assert files(root) == littered
    table = featcache("gc")
    assert table.code == 0
    assert "--yes deletes them" in table.err
    assert str(cache) in table.out

    deleted = found(featcache, "--yes")
    assert [item["path"] for item in deleted] == [item["path"] for item in listed]
    assert all(item["deleted"] for item in deleted)
    assert files(root) == before
    assert featcache("verify", "--quiet").code == 0
    assert heads("info", "last").code == 0


def test_an_index_of_a_removed_cache_goes(featcache: Run, root: Path) -> None:
    featcache("index", "build", "--name", "mine", "--quiet")
    assert found(featcache) == []
    cache = cache_in(root)
    (cache / "key.json").write_text("damaged")
    assert found(featcache, "--yes") == []  # it may be repaired
    featcache("rm", "blobs", "--yes")
    (item,) = found(featcache, "--yes")
    assert item["what"] == "index of the removed cache of blobs with tiny"
    assert not (root / ".indexes" / "mine").exists()


def test_arrays_of_an_interrupted_build_go_and_the_index_stays(featcache: Run, root: Path) -> None:
    featcache("index", "build", "--name", "mine", "--quiet")
    folder = root / ".indexes" / "mine"
    (folder / "arrays-0a0a0a0a").mkdir()
    (folder / "arrays-0a0a0a0a" / "rows.bin").write_bytes(b"1234")
    (item,) = found(featcache, "--yes")
    assert (item["what"], item["bytes"]) == ("arrays of an interrupted build", 4)
    assert featcache("index", "verify", "mine", "--quiet").code == 0
    assert not (folder / "arrays-0a0a0a0a").exists()


def test_what_is_being_written_is_left_alone(featcache: Run, root: Path) -> None:
    cache = cache_in(root)
    (cache / "global" / ".x.h5.tmp-1-0a0a0a0a").write_bytes(b"12345")
    with writer_lock(cache, lambda _: None):
        assert found(featcache, "--yes") == []
    assert len(found(featcache)) == 1
