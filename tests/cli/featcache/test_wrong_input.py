"""Wrong input to `featcache` is one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
DRAWN = ("--dataset", "fieldguide")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["extract"], 2, "--dataset: folder:PATH"),
        (["extract", "--views", "10"], 2, "--dataset: folder:PATH"),
        (["extract", *DRAWN, "--backbone", "vit-b16"], 2, "ViT-B"),
        (["extract", "--dataset", "fieldgide"], 2, "did you mean 'fieldguide'"),
        (["extract", "--dataset", "folder:/no/such/place"], 1, "/no/such/place"),
        (["extract", *DRAWN, "--patches", "clear", "--limit", "1"], 2, "clearclip"),
        (["extract", *DRAWN, "--limit", "0"], 2, "--limit"),
        (["extract", *DRAWN, "--waffle", "-1"], 2, "--waffle"),
        (["extract", *DRAWN, "--profile-to", "/no/such/x.json"], 2, "--profile-to"),
        (["extract", *DRAWN, "--waffle", "words"], 2, "--waffle"),
        (["extract", *DRAWN, "--weights", "nothing.safetensors"], 1, "nothing.safetensors"),
        (["info"], 1, "featcache extract"),
        (["verify", "--dataset", "x"], 1, "featcache extract"),
        (["rm", "x"], 1, "featcache extract"),
        (["import", "npz", "no.npz", "--name", "a", "--backbone", "b"], 1, "no.npz"),
        (["import", "npz", "x", "--name", "../../esc", "--backbone", "b"], 2, "--name esc"),
        (["extract", "--dataset", "folder:.", "--name", "../esc"], 2, "--name esc"),
        (["backbones", "qqqqq"], 2, "qqqqq"),
        (["exctract"], 2, "exctract"),
    ],
)
def test_wrong_input_is_one_sentence(
    featcache: Run, empty_home: Path, arguments: list[str], code: int, says: str
) -> None:
    answer = featcache(*arguments)
    assert answer.code == code, answer
    assert says in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_a_path_that_the_system_refuses_is_one_sentence(featcache: Run, empty_home: Path) -> None:
    long = "x" * 300
    for arguments in (
        ["--dataset", f"folder:{long}"],
        ["--dataset", long],
        [*DRAWN, "--weights", long],
    ):
        answer = featcache("extract", *arguments)
        assert answer.code == 1, answer
        assert "File name too long" in answer.err
        assert "Traceback" not in answer.err
