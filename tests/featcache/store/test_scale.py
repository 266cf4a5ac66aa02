"""A cache far larger than memory should cost, by the work it makes and not by the clock."""

import importlib.util
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from featcache.store import checked as module
from featcache.store.cache import Cache
from featcache.store.format.shard import map_shard
from featcache.store.library import caches
from featcache.store.listing.files import MappedFile

ROOT = Path(__file__).parents[3]
ROWS, SHARDS = 1_000_000, 1000


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("store_benchmark", ROOT / "benchmarks/store.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A million rows in a thousand shards, of zeros."""
    kinds = {"global": ((16,), "float16"), "patches.clearclip.int8": ((4, 20), "int8")}
    root = tmp_path_factory.mktemp("large")
    path = load_benchmark().build(root, rows=ROWS, shards=SHARDS, kinds=kinds)
    assert isinstance(path, Path)
    return path


@pytest.mark.long
def test_opening_reads_no_column_and_no_shard(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = MappedFile.data

    def noted(self: MappedFile) -> Any:
        read.append(self.path.name)
        return plain(self)

    def mapped(*arguments: Any) -> Any:
        read.append("shard")
        return map_shard(*arguments)

    monkeypatch.setattr(MappedFile, "data", noted)
    monkeypatch.setattr(module, "map_shard", mapped)
    tracemalloc.start()
    try:
        features = Cache.open(large).feature_set()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == ["listing.json"]
    assert most < 16 << 20
    assert len(features.listing) == ROWS
    assert int((~features.ok).sum()) == SHARDS // 200  # two components with the same bad rows
    read.clear()
    rows = np.array([ROWS - 1, 0, 2000, 2001])
    assert features.rows("global", rows).shape == (4, 16)
    assert sorted(read) == ["hashes.bin"] * 3 + ["shard"] * 3  # whose images, then the rows
    assert features.rows("patches.clearclip.int8", rows).shape == (4, 4, 16)
    assert features.listing.ids[ROWS - 1] == f"{ROWS - 1:08d}.jpg"
    assert features.labels[1001] == 1
    assert len(features.listing.splits["test"]) == ROWS // 2


def test_a_list_of_caches_does_not_open_the_listing(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MappedFile, "__init__", None)
    (found,) = caches(large.parents[1])
    assert not found.problem
    assert (found.images, found.components["global"].rows) == (ROWS, ROWS)


CHILD = """
import importlib.util, sys
from pathlib import Path
import numpy as np
from featcache.store.rows import ShardRows
from featcache.store.format.shard import ShardFacts
from featcache.store.format.records import ShardLine
from featcache.store.format.crc import crc32
from featcache.store.format.checksums import sums_of, write_sums

def anonymous():
    line = next(s for s in open("/proc/self/status") if s.startswith("RssAnon"))
    return int(line.split()[1]) << 10

folder, shards, each, width = Path(sys.argv[1]), 64, 32, 1 << 19
size = 512 + each * width * 2
facts = ShardFacts(
    offset=512, shape=(each, width), dtype="float16", bytes=size, crc32=crc32(bytes(size)),
    sha256="",
)
sums = sums_of(np.zeros((each, width), np.float16), facts)
lines = []
for i in range(shards):
    with (folder / f"{i}.h5").open("wb") as file:
        file.truncate(facts.bytes)
    if i % 8:  # one in eight is read whole first
        write_sums(folder / f"{i}.h5", facts, sums)
    lines.append(
        ShardLine(
            component="patches.clearclip", file=f"{i}.h5", rows=((i * each, (i + 1) * each),),
            bad=(), facts=facts, images_crc32=0, provenance={},
        )
    )
reader = ShardRows(folder, lines, shards * each)
before, most, read = anonymous(), 0, 0
for first in range(0, shards * each, 48):
    rows = np.arange(first, min(first + 48, shards * each))
    read += reader.gather(rows).nbytes
    most = max(most, anonymous() - before)
print(read, most)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.long
def test_chunk_by_chunk_two_gigabytes_take_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / "patches.clearclip"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    read, most = map(int, done.stdout.split())
    assert read == 2 << 30
    assert most < 200 << 20
