"""Wrong input to `heads` is one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "cmmm"], 2, "did you mean 'cmm'"),
        (["train", "cmm", "--shots", "0"], 2, "with --augment corpus:NAME, --shots 0 trains"),
        (["train", "cmm", "--augment", "wild"], 2, "did you mean --augment corpus:wild?"),
        (["train", "cmm", "--augment", "wild:weight=2"], 2, "corpus:wild:weight=2?"),
        (["train", "cmm", "--augment", "shelf:wild"], 2, "got 'shelf:wild'"),
        (["train", "cmm", "--shots", "many"], 2, "--shots"),
        (["train", "cmm", "--dataset", "blob"], 2, "blobs"),
        (["train", "cmm", "--split", "tset"], 2, "did you mean 'test'"),
        (["train", "cmm", "--set", "alpah=1"], 2, "did you mean 'alpha'"),
        (["train", "cmm", "--set", "alpha"], 2, "key=value"),
        (["train", "cmm", "--set", "lr=-1"], 2, "lr"),
        (["train", "cmm", "--selection", "test"], 2, "oracle"),
        (["train", "zero-shot", "--set", "text=description"], 1, "description"),
        (["train", "zero-shot", "--set", "text=cupl"], 1, "--cupl FILE.json"),
        (["train", "tip-adapter", "--set", "text=dclip"], 1, "--dclip FILE.json"),
        (["train", "cmm", "--set", "text=waffle"], 1, "--waffle SEED"),
        (["train", "zero-shot", "--set", "text=wafle"], 2, "did you mean 'waffle'"),
        (["train", "cmm", "--device", "tpu"], 2, "--device cpu"),
        (
            ["train", "tip-adapter", "--device", "meta", "--again"],
            2,
            "Device 'meta' cannot be used",
        ),
        (["train", "cmm", "--class-weights", "even"], 2, "balanced"),
        (["train", "gda", "--support", "long-tail:2"], 2, "between 0 and 1"),
        (["train", "gda", "--support", "longtail:0.1"], 2, "--support long-tail:0.01"),
        (["train", "gda", "--support", "counts:1,2,3,4,5,6,7"], 2, "7 counts"),
        (["train", "gda", "--support", "counts:no.txt"], 2, "no.txt cannot be read"),
        (["train", "gda", "--support", "counts:1,2", "--shots", "2"], 2, "--shots has no meaning"),
        (["train", "gda", "--support", "long-tail:0.1", "--protocol", "episodic"], 2, "--support"),
        (["train", "ensemble", "--set", "members=gda,gdb"], 2, "did you mean 'gda'"),
        (["train", "ensemble", "--set", "rule=greedi"], 2, "did you mean 'greedy'"),
        (["compare", "--metric", "top2"], 2, "top1"),
        (["compare", "--runs", "/no/such/place"], 1, "heads train"),
        (["compare", "--csv", "--json"], 2, "exclude"),
    ],
)
def test_wrong_input_is_one_sentence(
    heads: Run, home: Path, arguments: list[str], code: int, says: str
) -> None:
    answer = heads(*arguments)
    assert answer.code == code, answer
    assert says in answer.err
    assert answer.out == ""


def test_without_a_cache_the_command_is_named(heads: Run, empty_home: Path) -> None:
    answer = heads("train", "cmm")
    assert answer.code == 1
    assert "featcache extract" in answer.err
