r"""What a stranger wrote reaches the terminal as text: every name in every command's output."""

import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from cli import start
from cli.ui import commands, live, output, terminal
from featcache.errors import FeatcacheError
from featcache.escapes import shown
from featcache.keys import ComponentKey, FeatureKey, Listing
from featcache.store.cache import Cache
from featcache.store.format.identity import Identity
from featcache.types import TextBank
from heads.results.store import save
from tests.cli.conftest import Answer, Run, call
from tests.fuzz.run_targets import toy_run

EVIL = "ev\x1b[2J\x1b]0;title\x07il\u202e\u2066\u2028\u2029\u200b\ufeff\x9b31m\x85[red]:smile:"
SPLIT = "a\nb\tc\r" + EVIL
FORBIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
ROWS = 24


def forbidden(text: str) -> set[str]:
    return {ascii(c) for c in text if c not in "\n\t" and unicodedata.category(c) in FORBIDDEN}


def check(answer: Answer, *, shows: bool = True) -> None:
    assert not forbidden(answer.out), answer.out
    assert not forbidden(answer.err), answer.err
    if shows:
        both = answer.out + answer.err
        assert shown(EVIL) in both, both


@pytest.fixture
def evil_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a run in which every text that can be is hostile."""
    home = tmp_path / "home"
    key = FeatureKey(
        architecture=EVIL, weights=EVIL, activation=EVIL, image_size=32, preprocessing=EVIL
    )
    values = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float16)
    rows = np.arange(ROWS, dtype=np.int64)
    cache = Cache.create(home, SPLIT, EVIL, key)
    cache.put_listing(
        Listing(
            dataset=SPLIT,
            root=EVIL,
            classes=(EVIL + "0", SPLIT),
            ids=tuple(f"{i}{SPLIT}.jpg" for i in range(ROWS)),
            hashes=tuple(f"{i:064x}" for i in range(ROWS)),
            labels=rows % 2,
            splits={"train": rows[:8], "val": rows[8:12], "test": rows[12:], EVIL: rows[12:14]},
            templates=("a {}",),
            notes=(EVIL,),
        )
    )
    made_with = {"device": EVIL, EVIL: "1"}
    cache.append(ComponentKey(kind="global"), rows, values, {3: EVIL}, made_with)
    bank = TextBank(
        classes=(EVIL + "0", SPLIT),
        names=torch.eye(2, 8),
        templates=("a {}",),
        template_rows=torch.eye(2, 8)[:, None],
    )
    cache.put_text(bank, made_with)
    cache.finish(components=["global"], images=ROWS, seconds=1.0, complete=True)
    run = toy_run("cmm", "one")
    fields = dict.fromkeys(("dataset", "backbone", "split", "variant", "selection"), EVIL)
    for name, value in {**fields, "notes": (EVIL,), "source": EVIL}.items():
        object.__setattr__(run, name, value)
    save(run, home / "runs")
    monkeypatch.setenv("FEATCACHE_HOME", str(home))
    return home


def test_every_command_that_shows_a_cache(evil_home: Path, featcache: Run, heads: Run) -> None:
    check(featcache("ls"))
    check(featcache("info"))
    check(featcache("verify"), shows=False)
    check(featcache("repair"), shows=False)
    check(featcache("rm", SPLIT))
    check(heads("train", "zero-shot"))
    check(heads("compare"))
    check(heads("compare", "--markdown"))
    check(heads("compare", "--csv"))
    check(heads("compare", "--where"))
    check(heads("list"), shows=False)
    check(featcache("datasets"), shows=False)
    check(featcache("rm", SPLIT, "--yes"))
    assert not list(evil_home.glob("*/*/manifest.jsonl"))


def test_what_is_wrong_with_a_strangers_cache(evil_home: Path, featcache: Run) -> None:
    (manifest,) = evil_home.glob("*/*/manifest.jsonl")
    manifest.write_bytes(manifest.read_bytes().replace(b'"rows"', b'"rowz"'))
    for command in ("ls", "info", "verify", "repair"):
        check(featcache(command), shows=False)
    manifest.parent.joinpath("stray\x1b[2J").write_bytes(b"x")
    check(featcache("verify"), shows=False)


@pytest.mark.parametrize("command", ["info", "rm", "import"])
def test_what_was_typed_is_shown_too(empty_home: Path, featcache: Run, command: str) -> None:
    more = {"import": ["npz", EVIL, "--name", "a", "--backbone", "b"]}
    check(featcache(command, *more.get(command, [EVIL])), shows=command == "import")
    check(featcache(command, f"--{EVIL}"))


@pytest.mark.long
def test_pictures_with_names_of_a_strangers(
    tmp_path: Path, empty_home: Path, featcache: Run
) -> None:
    folder = tmp_path / EVIL
    for c in ("ant", "bee"):
        for i in range(3):
            path = folder / c / f"{i}{EVIL}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (50 * i, 0, 0)).save(path)
    (folder / "ant" / f"9{EVIL}.png").write_bytes(b"no picture")
    answer = featcache(
        "extract", "--backbone", "tiny", "--weights", "random", "--dataset", f"folder:{folder}",
        "--name", "odd", "--patches", "none",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    check(answer, shows=False)
    check(featcache("info", "odd"))
    check(featcache("extract", "--dataset", f"folder:{folder}"))  # the folder's name is no name


def test_json_is_exact_and_ascii(evil_home: Path, featcache: Run, heads: Run) -> None:
    (line,) = featcache("ls", "--json").out.splitlines()
    assert line.isascii()
    assert (json.loads(line)["dataset"], json.loads(line)["backbone"]) == (SPLIT, EVIL)
    told = json.loads(featcache("info", "--json").out)
    assert told["classes"] == [EVIL + "0", SPLIT]
    assert told["made_with"][0] == {"device": EVIL, EVIL: "1"}
    out = heads("train", "zero-shot", "--json").out
    assert out.isascii()
    assert json.loads(out)["dataset"] == SPLIT
    rows = [json.loads(line) for line in heads("compare", "--json").out.splitlines()]
    assert EVIL in {row["variant"] for row in rows}


def test_a_table_and_an_error_on_a_terminal(evil_home: Path) -> None:
    for arguments in (["ls"], ["info"], ["rm", SPLIT]):
        text = on_terminal(arguments)
        own = re.sub(
            r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[12]?[KA]", "", text.replace("\r\n", "\n")
        )
        assert not forbidden(own), own
        assert "u202e" in own.replace("\n", "")


def on_terminal(arguments: list[str]) -> str:
    """Run a command of ours with a terminal as stdout and stderr."""
    code = "import sys; from cli.featcache.app import main; sys.argv[0] = 'featcache'; main()"
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=other,
        stderr=other,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(other)
    parts = []
    try:
        while part := os.read(main, 65536):
            parts.append(part)
    except OSError:  # Linux says so when the other end is closed
        pass
    process.wait()
    os.close(main)
    return b"".join(parts).decode()


def test_a_command_that_forgets_all_this() -> None:
    app = commands.make_app("Forgetful.")

    @app.command()
    def careless() -> None:
        sys.stdout.write(EVIL + "\n")
        sys.stderr.write(EVIL + "\n")
        typer.echo(EVIL)
        with live.live(quiet=False) as line:
            line.say(EVIL)
        output.say(SPLIT)
        output.emit(SPLIT)
        raise FeatcacheError(SPLIT)

    @app.command()
    def other() -> None:
        """Make it a group."""

    answer = call(app, ["careless"])
    check(answer)
    assert "a\\nb\\tc\\r" in answer.out
    assert answer.err.count("a\\nb\\tc\\r") >= 1


def test_a_bug_of_ours_quotes_a_stranger(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ValueError(EVIL)

    with pytest.raises(SystemExit):
        terminal.run(broken)
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert not forbidden(err)


def test_what_is_shown_as_it_is() -> None:
    for text in ("Größe „klein“ 日本 🦋 عربى नमस्ते", "a b", "é\u0301", "100\u00a0%"):
        assert shown(text) == text
    assert shown("\ud800\u200d\u061c\x00") == "\\ud800\\u200d\\u061c\\x00"
    assert shown("a\nb\x0b", keep="\n") == "a\nb\\x0b"


def test_nothing_but_the_guarded_ways_is_used() -> None:
    """Direct writes are escaped as well, but only these places know how a line ends."""
    folder = Path(start.__file__).parent
    direct = re.compile(r"sys\.std(out|err)\.write|typer\.(echo|secho|confirm|prompt)|\bConsole\(")
    found = {
        (path.relative_to(folder).as_posix(), match.group())
        for path in folder.rglob("*.py")
        for match in direct.finditer(path.read_text())
    }
    assert found == {
        ("start.py", "sys.stderr.write"),  # before anything is loaded, and of our own words
        ("ui/errors.py", "sys.stderr.write"),
        ("ui/output.py", "sys.stdout.write"),
        ("ui/output.py", "typer.confirm"),
        ("ui/terminal.py", "Console("),
    }


def test_the_folder_of_such_a_cache_stays_below_its_root(evil_home: Path) -> None:
    key = FeatureKey(architecture="a", weights="b", activation="c", image_size=1, preprocessing="d")
    folder = Identity(SPLIT, EVIL, key).folder(evil_home)
    assert folder.parent.parent == evil_home
    assert shown(str(folder)) == str(folder)
