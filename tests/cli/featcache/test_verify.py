"""`featcache verify`: caches, and runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heads.results import store
from heads.results.reading import from_json

Run = Callable[..., Any]
TRAIN = ("train", "zero-shot", "--quiet")


def test_verify_checks_runs(heads: Run, featcache: Run, home: Path, tmp_path: Path) -> None:
    where = ("--runs", str(tmp_path))
    nothing = featcache("verify", *where)
    assert (nothing.code, "There are no runs" in nothing.err) == (1, True)
    told = heads(*TRAIN, "--json", *where)
    assert featcache("verify", *where).out.startswith("sound: 1 run:")
    folder = store.find(tmp_path, from_json(told.out).run)
    (folder / store.ANSWERS).write_bytes(b"")
    answer = featcache("verify", "--json", *where)
    assert answer.code == 1
    found = json.loads(answer.out)
    assert (found["sound"], [p["run"] for p in found["problems"]]) == (False, [folder.name])
    assert featcache("verify", *where).out.startswith("DAMAGED: 1 of 1 run:")
    table = heads("compare", *where)
    assert "left out of all tables: 1" in table.err
    assert featcache("verify", "blobs", *where).code == 2


def test_verify_finds_the_runs_at_home(
    heads: Run, featcache: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads(*TRAIN)
    for arguments in (["--runs"], ["--runs", "--json"]):
        assert str(home / "runs") in featcache("verify", *arguments).out
