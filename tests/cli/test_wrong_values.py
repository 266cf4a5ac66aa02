"""Every option and argument of every command, given what it cannot mean.

Each is refused by exit code 1 or 2 and one message that names the option or the value, without a
traceback and without a result on stdout. An option that `wrong_values` lacks fails the test.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from cli.featcache.app import app as featcache_app
from cli.heads.app import app as heads_app
from tests.cli.wrong_values import BESIDE, INSTEAD, RIGHT, WRONG
from tests.featcache.importers import miniatures
from tests.fuzz.kept_heads import toy_head

Run = Callable[..., Any]

CASES = [
    (command, option, value)
    for command, options in WRONG.items()
    for option, values in options.items()
    for value in values
]


def params(group: Any, prefix: str) -> Iterator[tuple[str, set[str]]]:
    """List the commands of an application with their options that take a value, and arguments."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from params(command, f"{prefix} {name}")
            continue
        named = set()
        for param in command.params:
            if param.param_type_name == "argument":
                named.add(param.metavar or param.name.upper())
            elif not param.is_flag and param.name != "help":
                named.add(param.opts[0])
        yield f"{prefix} {name}", named


def test_the_table_has_every_option() -> None:
    for program, app in (("featcache", featcache_app), ("heads", heads_app)):
        for command, named in params(typer.main.get_command(app), program):
            assert named == set(WRONG[command]), command


def line_of(command: str, option: str, value: str) -> list[str]:
    """Return a command line that is right but for one value."""
    right = list(INSTEAD.get((command, option), RIGHT.get(command, [])))
    beside = list(BESIDE.get((command, option), []))
    for words in (right, beside):
        while option in words:
            at = words.index(option)
            del words[at : at + 2]
    for flag in beside[::2]:
        if flag in right:
            at = right.index(flag)
            del right[at : at + 2]
    if option.startswith("--"):
        return [*right, *beside, f"{option}={value}"]
    return [*beside, value, *right[1:]]


@pytest.fixture
def place(tmp_path: Path, photos: Path) -> dict[str, str]:
    (tmp_path / "file.bin").write_bytes(b"\x80\x00nothing that anything reads\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "good.head").write_bytes(toy_head())
    x = np.eye(4, dtype=np.float32)
    labels = np.array([0, 0, 1, 1])
    np.savez(
        tmp_path / "good.npz",
        train_features=x, train_labels=labels, test_features=x, test_labels=labels,
    )  # fmt: skip
    return {"place": str(tmp_path), "photos": str(photos)}


@pytest.fixture
def trained(heads: Run, home: Path) -> Path:
    """Return the home of a cache and of at least one run."""
    if not list((home / "runs").glob("*/*/*/result.json")):
        answer = heads("train", "zero-shot", "--dataset", "blobs", "--quiet")
        assert answer.code == 0, answer
    return home


@pytest.mark.long
@pytest.mark.parametrize(("command", "option", "value"), CASES)
def test_a_wrong_value_is_one_sentence(
    featcache: Run, heads: Run, trained: Path, place: dict[str, str], command: str, option: str,
    value: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    program, *sub = command.split(" ")
    if command == "heads serve":  # would not end if the value were taken
        server = pytest.importorskip("uvicorn", reason="uvicorn is of the extras serve and dev")
        monkeypatch.setattr(server.Server, "run", lambda *_, **__: None)
    if sub[0] == "import" and sub[1] != "npz":
        folder = Path(place["place"]) / "theirs"
        if sub[1] == "transclip":
            whole = miniatures.tip_adapter(folder, "rows").arguments[1:]
        else:
            whole = getattr(miniatures, sub[1].replace("-", "_"))(folder).arguments[1:]
        RIGHT[command] = [*whole, "--name", "other", "--backbone", "B"]
    value = value.replace("{place}", place["place"])
    words = [
        word.replace("{place}", place["place"]).replace("{photos}", place["photos"])
        for word in line_of(command, option, value)
    ]
    answer = (featcache if program == "featcache" else heads)(*sub, *words)
    assert answer.code in (1, 2), answer
    assert answer.out == "" or command == "featcache doctor", answer
    assert "Traceback" not in answer.err
    if command != "featcache doctor":
        errors = [line for line in answer.err.splitlines() if line.lower().startswith("error: ")]
        assert len(errors) == 1, answer
        parts = [part for part in re.split("[:@,=]|few", value) if len(part) > 2]
        assert any(name in errors[0] for name in (option, *filter(None, [value]), *parts)), answer
