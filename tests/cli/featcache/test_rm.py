"""`featcache rm`: one cache, and only when somebody agrees."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
TINY = ("--backbone", "tiny", "--weights", "random")


def test_rm_asks_and_then_removes(featcache: Run, empty_home: Path, photos: Path) -> None:
    featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet", "--limit", "6")
    refused = featcache("rm", "blobs")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert featcache("rm", "blobs", "--yes").code == 0
    assert "extract" in featcache("ls").err


def test_rm_takes_one_cache_and_wants_to_know_which(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    for weights in ("random-1", "random-2"):
        featcache("extract", "--weights", weights, "--dataset", f"folder:{photos}", "--limit", "3")
    keys = [json.loads(line)["key"] for line in featcache("ls", "--json").out.splitlines()]
    refused = featcache("rm", "blobs", "--yes")
    assert refused.code == 2
    assert all(key in refused.err for key in keys)
    assert featcache("rm", "blobs", "--yes", "--key", keys[0][:6]).code == 0
    left = [json.loads(line)["key"] for line in featcache("ls", "--json").out.splitlines()]
    assert left == keys[1:]
