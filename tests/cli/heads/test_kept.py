"""`heads ls`, `info` and `rm`: what is kept, and removing it."""

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import heads
from cli.heads.ls import list_runs
from featcache.units import human_time
from tests.cli.conftest import Answer

Run = Callable[..., Answer]


@pytest.fixture
def runs(quick_home: Path, tmp_path: Path) -> Path:
    """A copy of the runs, to remove some."""
    shutil.copytree(quick_home / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def listed(answered: Run, *more: str) -> list[dict[str, Any]]:
    answer = answered("ls", "--json", *more)
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


def test_ls_shows_runs_with_their_heads(answered: Run) -> None:
    gda, knn = listed(answered)
    assert (gda["method"], knn["method"]) == ("gda", "knn")
    assert gda["heads"] == [1, 2]
    assert gda["holds_training_features"] == []
    assert knn["holds_training_features"] == ["keys"]
    assert 0 < gda["head_bytes"] < gda["bytes"]
    assert [r["method"] for r in listed(answered, "--method", "knn")] == ["knn"]
    table = answered("ls").out
    assert gda["run"] in table
    assert "2, training features" in table


def test_ls_keeps_the_name_of_a_run_whole_in_a_narrow_window(
    quick_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window: Any = io.StringIO()
    window.isatty = lambda: True
    monkeypatch.setenv("COLUMNS", "56")
    monkeypatch.setattr(sys, "stdout", window)
    list_runs(runs=quick_home / "runs")
    monkeypatch.undo()
    shown = re.sub("\x1b\\[[0-9;]*m", "", window.getvalue())
    names = [path.parent.name for path in (quick_home / "runs").rglob("result.json")]
    assert names
    assert {*names, "knn", "gda"} <= set(shown.split())
    assert max(map(len, shown.splitlines())) <= 56


def test_ls_without_runs(answered: Run, tmp_path: Path) -> None:
    answer = answered("ls", "--runs", str(tmp_path))
    assert (answer.code, answer.out) == (0, "")
    assert "heads train" in answer.err


def test_a_damaged_run_is_said_and_can_be_removed(answered: Run, runs: Path) -> None:
    gda = listed(answered, "--runs", str(runs))[0]
    (Path(gda["path"]) / "result.json").write_text("{}")
    left = answered("ls", "--runs", str(runs))
    assert left.code == 0
    assert gda["run"] not in left.out
    assert gda["run"] in left.err
    assert answered("rm", gda["run"], "--yes", "--runs", str(runs)).code == 0
    assert not Path(gda["path"]).exists()


def test_info_of_a_run_and_of_a_head(answered: Run, tmp_path: Path) -> None:
    run = json.loads(answered("info", "last", "--json").out)
    assert run == listed(answered)[0]
    assert f"{run['run']}@1, {run['run']}@2" in answered("info", run["run"]).out
    told = dict(row.split("\t") for row in answered("info", run["run"]).out.splitlines())
    assert told["created"] == human_time(datetime.fromisoformat(run["created"]))
    assert told["protocol"] == "few-shot, 2 shots, selection few-shot-val"
    file = heads.load(f"{run['run']}@2").save(tmp_path / "blobs.head")
    of_run = json.loads(answered("info", f"{run['run']}@2", "--json").out)
    of_file = json.loads(answered("info", str(file), "--json").out)
    assert of_file["path"] == str(file)
    assert {**of_file, "path": ""} == {**of_run, "path": ""}
    assert of_file["classes"] == ["lime", "plum", "rust"]
    assert of_file["about"]["seed"] == 2
    shown = answered("info", str(file)).out
    assert "no training features" in shown
    assert "protocol\tfew-shot\n" in shown
    assert "lime, plum, rust" in shown
    assert answered("info", str(tmp_path / "none.head")).code == 1


def test_rm_asks_and_removes_a_run_as_a_whole(answered: Run, runs: Path) -> None:
    gda, knn = listed(answered, "--runs", str(runs))
    asked = answered("rm", gda["run"], "--runs", str(runs))
    assert asked.code == 2
    assert "--yes" in asked.err
    one_head = answered("rm", f"{gda['run']}@1", "--yes", "--runs", str(runs))
    assert one_head.code == 2
    assert gda["run"] in one_head.err
    last = answered("rm", "last", "--yes", "--runs", str(runs))
    assert last.code == 2
    assert "the one stored last is" in last.err
    done = answered("rm", gda["run"], "--yes", "--runs", str(runs), "--json")
    assert json.loads(done.out)["bytes"] == gda["bytes"]
    assert [r["run"] for r in listed(answered, "--runs", str(runs))] == [knn["run"]]
    assert answered("rm", knn["run"], "--yes", "--runs", str(runs)).code == 0
    assert list(runs.iterdir()) == []


def test_rm_names_runs_that_use_the_same_heads(answered: Run, runs: Path) -> None:
    trained = answered("train", "gda", "--shots", "2", "--seeds", "2", "--split", "val",
                       "--runs", str(runs), "--json")  # fmt: skip
    other = json.loads(trained.out)["run"]
    gda = next(r for r in listed(answered, "--runs", str(runs)) if r["heads"] == [1, 2]
               and r["method"] == "gda")  # fmt: skip
    assert heads.load(f"{other}@1", root=runs).classes == ("lime", "plum", "rust")
    removed = answered("rm", gda["run"], "--yes", "--runs", str(runs))
    assert other in removed.err
    assert answered("info", f"{other}@1", "--runs", str(runs)).code == 1
