"""The command line of `heads`: one record, exit codes, and no encoder in sight."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heads.results.record import Result

Run = Callable[..., Any]


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe", "tip-adapter", "cmm"])
def test_train_prints_one_record(heads: Run, home: Path, method: str) -> None:
    answer = heads("train", method, "--shots", "2", "--json")
    assert answer.code == 0, answer.err
    result = Result.from_json(answer.out)
    assert result.method == method
    assert result.shots == (0 if method == "zero-shot" else 2)
    assert 0 <= result.metrics["top1"].mean <= 1
    assert "finished last" in answer.err


def test_train_says_it_in_a_sentence_and_compare_in_a_table(heads: Run, home: Path) -> None:
    told = heads("train", "tip-adapter", "--shots", "1", "--seeds", "2", "--quiet")
    assert told.out.startswith("tip-adapter on blobs (tiny, 1 shots, test): top-1 ")
    assert told.err == ""
    heads("train", "zero-shot", "--quiet")
    table = heads("compare", "--shots", "1", "--where")
    assert table.code == 0
    assert "zero-shot" in table.out
    assert "tip-adapter" in table.out
    assert str(home) in table.err
    rows = [json.loads(line) for line in heads("compare", "--json").out.splitlines()]
    assert {"zero-shot", "tip-adapter"} <= {row["method"] for row in rows}
    assert heads("compare", "--csv").out.startswith("dataset,backbone")
    assert heads("compare", "--markdown").out.startswith("###")


def test_short_classes_are_taken_and_said(heads: Run, home: Path) -> None:
    taken = heads("train", "tip-adapter", "--shots", "16")
    assert taken.code == 0
    assert "rust" in taken.err
    assert heads("train", "tip-adapter", "--shots", "16", "--strict-shots").code == 1


def test_list_names_every_method(heads: Run) -> None:
    listed = [json.loads(line)["name"] for line in heads("list", "--json").out.splitlines()]
    assert {"zero-shot", "linear-probe", "tip-adapter", "tip-adapter-f", "cmm"} <= set(listed)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "cmn"], 2, "did you mean 'cmm'"),
        (["train", "cmm", "--shots", "0"], 2, "--shots"),
        (["train", "cmm", "--shots", "many"], 2, "--shots"),
        (["train", "cmm", "--dataset", "blob"], 2, "blobs"),
        (["train", "cmm", "--split", "tset"], 2, "did you mean 'test'"),
        (["train", "cmm", "--set", "alpah=1"], 2, "did you mean 'alpha'"),
        (["train", "cmm", "--set", "alpha"], 2, "key=value"),
        (["train", "cmm", "--set", "lr=-1"], 2, "lr"),
        (["train", "cmm", "--selection", "test"], 2, "oracle"),
        (["train", "zero-shot", "--set", "text=description"], 1, "description"),
        (["train", "cmm", "--device", "tpu"], 1, "--device cpu"),
        (["train", "cmm", "--class-weights", "even"], 2, "balanced"),
        (["compare", "--dataset", "nobody"], 1, "heads train"),
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


def test_training_loads_no_encoder(home: Path) -> None:
    code = (
        "import sys\n"
        "sys.argv = ['heads', 'train', 'zero-shot', '--quiet']\n"
        "from cli.heads import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "heavy = {'open_clip', 'ot', 'h5py', 'PIL', 'torchvision', 'faiss'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
