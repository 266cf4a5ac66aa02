"""Values that are not finite are named, whoever wrote them and whatever their checksums say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from featcache.errors import CorruptCacheError
from featcache.store.cache import Cache
from featcache.store.format.checksums import sums_path
from featcache.store.format.identity import Identity
from featcache.store.format.manifest import write_manifest
from featcache.store.format.scan import checksums
from featcache.store.format.shard import write_shard
from featcache.store.repair.examine import add_sums
from featcache.store.repair.verify import repair, verify
from featcache.types import TextBank
from featcache.wording import in_python
from tests.featcache.store.conftest import HERE
from tests.featcache.store.reading.shards import KEYS, read, shard_of
from tests.tiers import quick


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
