"""An option given twice is taken twice or refused, and an empty one refused, in every command."""

from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from cli.featcache.app import app as featcache_app
from cli.heads.app import app as heads_app
from cli.ui import commands, output
from cli.ui.commands import takes_one_value

Run = Callable[..., Any]


def walk(group: TyperGroup, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield every command and every option of it that takes one value."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from walk(command, *names, name)
        else:
            for param in command.params:
                if takes_one_value(param):
                    yield (*names, name, param.opts[0])


def test_every_option_that_takes_one_value_is_refused_twice(featcache: Run, heads: Run) -> None:
    for app, run in ((featcache_app, featcache), (heads_app, heads)):
        group = typer.main.get_command(app)
        assert isinstance(group, TyperGroup)
        found = list(walk(group))
        assert len(found) > 10
        for *names, option in found:
            answer = run(*names, option, "1", option, "2")
            assert answer.code == 2, (names, option)
            says = f"error: {option} is given 2 times and takes one value; leave one.\n"
            assert answer.err == says


def test_every_option_and_argument_is_refused_empty(featcache: Run, heads: Run) -> None:
    for app, run in ((featcache_app, featcache), (heads_app, heads)):
        group = typer.main.get_command(app)
        assert isinstance(group, TyperGroup)
        for *names, option in walk(group):
            answer = run(*names, option, "")
            assert answer.code == 2, (names, option)
            assert answer.err == f"error: {option} is empty. Give it a value, or leave it out.\n"
    assert "--shots is empty" in heads("compare", "--shots", "1", "--shots", "").err
    assert "--set is empty" in heads("train", "cmm", "--set", "").err
    for command in ("info", "verify", "repair", "rm"):  # mostly a variable that is not set
        assert "DATASET is empty" in featcache(command, "").err


def test_an_empty_key_does_not_remove_a_cache(featcache: Run, home: Any) -> None:
    answer = featcache("rm", "blobs", "--key", "", "--yes")
    assert answer.code == 2
    assert "--key is empty" in answer.err
    assert list(home.glob("blobs/*/key.json"))


def test_an_option_written_in_two_ways_is_one(heads: Run) -> None:
    answer = heads("train", "cmm", "--shots=1", "--shots", "4")
    assert answer.code == 2
    assert "--shots is given 2 times" in answer.err


def test_flags_may_be_repeated(featcache: Run, home: Any) -> None:
    assert featcache("verify", "--quiet", "-q", "-q").code == 0


def test_a_new_command_is_checked_too() -> None:
    app = commands.make_app("Example: x")

    @app.command()
    def one(size: int = 0) -> None:
        output.emit(str(size))

    @app.command()
    def two() -> None:
        pass

    assert CliRunner().invoke(app, ["one", "--size", "3"]).stdout == "3\n"
    assert CliRunner().invoke(app, ["one", "--size", "3", "--size", "4"]).exit_code == 2


def test_filters_of_compare_add_up(heads: Run, home: Any) -> None:
    for shots in ("1", "2"):
        assert heads("train", "nearest-mean", "--shots", shots, "--quiet").code == 0
    both = heads("compare", "--shots", "1", "--shots", "2", "--split", "test", "--split", "test")
    assert "1 shot," in both.out
    assert "2 shots," in both.out
    two = heads("compare", "--dataset", "blobs", "--dataset", "others")
    assert two.code == 2
    assert "Unknown data set of the runs 'others'" in two.err
