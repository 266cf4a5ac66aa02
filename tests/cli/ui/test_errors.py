"""How a command ends before its time: interrupted, unread, with nowhere to write."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import start
from cli.ui import output, tables
from featcache.errors import FeatcacheError
from featcache.pipeline import opening, run
from heads.protocols import obtain
from heads.results import store
from heads.results.store import load_all

Run = Callable[..., Any]
TRAIN = ("train", "zero-shot", "--quiet")


def saved(root: Path) -> list[str]:
    return [result.run for result in load_all(root).results]


def raising(error: BaseException) -> Callable[..., Any]:
    def raise_(*_: object, **__: object) -> None:
        raise error

    return raise_


@pytest.mark.parametrize("module", ["featcache", "heads"])
def test_an_interruption_while_loading_is_no_traceback(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "import_module", raising(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as ended:
        getattr(start, module)()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_the_commands_begin_where_that_holds() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'featcache = "cli.start:featcache"' in text
    assert 'heads = "cli.start:heads"' in text
    loaded = "import cli.start, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert not {"typer", "json", "pathlib", "numpy", "torch"} & set(done.stdout.split())


def test_an_interrupted_training_claims_nothing(
    heads: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "obtain", raising(KeyboardInterrupt()))
    answer = heads(*TRAIN, "--runs", str(tmp_path))
    assert answer.code == 130
    assert answer.err.strip() == (
        "Interrupted. Nothing of this run was stored; the same command starts it again."
    )


def test_an_interrupted_extraction_claims_only_what_is_kept(
    featcache: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ("--backbone", "tiny", "--dataset", f"folder:{photos}")
    arguments = ("extract", *source, "--quiet", "--cache", str(tmp_path / "caches"))
    nothing = "Interrupted. No features were stored yet; the same command starts again."
    with monkeypatch.context() as patch:
        patch.setattr(opening, "open_request", raising(KeyboardInterrupt()))
        answer = featcache(*arguments)
    assert (answer.code, answer.err.strip()) == (130, nothing)
    monkeypatch.setattr(run, "prepare", raising(KeyboardInterrupt()))
    answer = featcache(*arguments)
    assert (answer.code, answer.err.strip()) == (130, nothing)
    monkeypatch.setattr(run, "prepare", raising(KeyboardInterrupt()))  # the other has its note
    assert featcache(*arguments, "--dry-run").err.strip() == "Interrupted."


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), BrokenPipeError(), OSError(28, "full"), FeatcacheError("No room.")],
)
def test_a_run_that_was_saved_is_named(
    heads: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(output, "emit_lines", raising(error))
    answer = heads(*TRAIN, "--runs", str(tmp_path))
    (run,) = saved(tmp_path)
    assert answer.code == {KeyboardInterrupt: 130, BrokenPipeError: 0}.get(type(error), 1)
    assert "The run was saved as " in answer.err
    assert run in answer.err


def test_an_interruption_before_the_run_is_in_its_place_says_so(
    heads: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_write", raising(KeyboardInterrupt()))
    answer = heads(*TRAIN, "--runs", str(tmp_path))
    assert "Nothing of this run was stored" in answer.err
    assert saved(tmp_path) == []


def test_a_command_that_stores_nothing_speaks_of_nothing(
    heads: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "emit_table", raising(KeyboardInterrupt()))
    assert heads("list").err.strip() == "Interrupted."


def test_nowhere_to_write() -> None:
    command = f"{sys.executable} -c 'from cli.start import featcache; featcache()' datasets"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
    assert full.returncode == 1
    assert full.stderr.startswith("error: Standard output cannot be written (No space left on")
    assert len(full.stderr.splitlines()) == 1
    assert subprocess.run(f"{command} <&- >&- 2>&-", shell=True).returncode == 0
