"""What typer refuses, as one sentence that says what to write."""

from typing import Any

import pytest
from typer.testing import CliRunner

from cli.featcache.app import app as featcache_app
from cli.heads.app import app as heads_app


@pytest.mark.parametrize(
    ("app", "words", "said"),
    [
        (heads_app, "train", "METHOD is missing; write e.g. `heads train cmm --shots 16`; `"),
        (heads_app, "predict", "RUN|FILE is missing; write e.g. `heads predict last new/`; `"),
        (featcache_app, "import npz f.npz", "--name is missing; write e.g. `featcache import npz "),
        (heads_app, "predict last a.jpg --top x", "--top cannot be 'x': "),
        (featcache_app, "export pets --thumbnails 1.5", "--thumbnails cannot be '1.5': "),
    ],
)
def test_one_sentence_says_what_to_write(app: Any, words: str, said: str) -> None:
    answer = CliRunner().invoke(app, words.split())
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error: {said}")
    assert " --help` shows " in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("app", "words", "said"),
    [
        (heads_app, "predict --tpo 3", "Unknown option '--tpo'; did you mean '--top'"),
        (heads_app, "predict last x --jso", "Unknown option '--jso'; did you mean '--json'"),
        (heads_app, "train cmm -Z", "Unknown option '-Z'; "),
        (
            heads_app,
            "--versoin",
            "Unknown option '--versoin'; did you mean '--version'? `heads --h",
        ),
        (
            heads_app,
            "predictt",
            "Unknown command 'predictt'; did you mean 'predict'? `heads --help",
        ),
        (heads_app, "predict last x --top", "Option '--top' requires an argument; write e.g. `he"),
        (heads_app, "train cmm --quiet=3", "Option '--quiet' does not take a value; write e.g. `"),
        (heads_app, "serve last twice", "Got unexpected extra argument(s) (twice); write e.g. `he"),
        (featcache_app, "index buid", "Unknown command 'buid'; did you mean 'build'? `featcache i"),
        (featcache_app, "index build --nam x", "Unknown option '--nam'; did you mean '--name'"),
    ],
)
def test_unknown_words_are_one_sentence_with_near_ones(app: Any, words: str, said: str) -> None:
    name = {heads_app: "heads", featcache_app: "featcache"}[app]
    answer = CliRunner().invoke(app, words.split(), prog_name=name)
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error: {said}")
    assert " --help` shows all." in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(("words", "shown"), [("", "index"), ("index", "build")])
def test_a_group_alone_shows_its_commands(words: str, shown: str) -> None:
    answer = CliRunner().invoke(featcache_app, words.split())
    assert answer.exit_code == 2
    assert shown in answer.output
    assert "error" not in answer.output


def test_features_are_not_written_under_the_suffix_of_another_format() -> None:
    answer = CliRunner().invoke(featcache_app, ["export", "pets", "--out", "a.csv"])
    assert answer.exit_code == 2
    assert "written as parquet, and a.csv says .csv; name it a.parquet" in answer.stderr


def test_garbage_of_a_folder_that_is_not_there(tmp_path: Any) -> None:
    answer = CliRunner().invoke(featcache_app, ["gc", "--cache", str(tmp_path / "no")])
    assert answer.exit_code == 2
    assert f"There is no folder {tmp_path}/no; name the one of the caches" in answer.stderr


@pytest.mark.parametrize(
    ("app", "words", "said"),
    [
        (featcache_app, "extract --limit x", "--limit cannot be 'x': expected a whole number; `"),
        (featcache_app, "extract --limit 1.5", "--limit cannot be '1.5': expected a whole number;"),
        (featcache_app, "extract --limit -1", "--limit cannot be '-1': expected 1 or more; `"),
        (heads_app, "serve last --port x", "--port cannot be 'x': expected a whole number; `"),
        (heads_app, "serve last --reject x", "--reject cannot be 'x': expected a number; `"),
        (featcache_app, f"export pets --thumbnails {'9' * 5000}", "--thumbnails cannot be '999"),
    ],
)
def test_what_is_no_number_is_said_in_our_words(app: Any, words: str, said: str) -> None:
    answer = CliRunner().invoke(app, words.split())
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error: {said}")
    assert "valid" not in answer.stderr
    assert "parse" not in answer.stderr
