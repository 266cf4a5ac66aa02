"""`heads train`: one record, what is said, and no encoder in sight."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heads.results.reading import from_json

Run = Callable[..., Any]


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe", "tip-adapter", "cmm"])
def test_train_prints_one_record(heads: Run, home: Path, method: str) -> None:
    answer = heads("train", method, "--shots", "2", "--seeds", "1", "--json")
    assert answer.code == 0, answer.err
    result = from_json(answer.out)
    assert result.method == method
    assert result.shots == (0 if method == "zero-shot" else 2)
    assert 0 <= result.metrics["top1"].mean <= 1
    assert "finished last" in answer.err


def test_train_says_it_in_a_sentence_and_compare_in_a_table(heads: Run, home: Path) -> None:
    told = heads("train", "tip-adapter", "--shots", "1", "--seeds", "2", "--quiet")
    assert told.out.startswith("tip-adapter on blobs (tiny, 1 shot, test): top-1 ")
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


def test_calibration_is_said_and_shown(heads: Run, home: Path) -> None:
    given = ["--shots", "2", "--seeds", "1", "--quiet"]
    answer = heads("train", "tip-adapter", *given, "--calibrate-on", "folds")
    assert answer.code == 0, answer.err
    assert "calibration error " in answer.out
    heads("train", "nearest-mean", *given, "--calibrate-on", "none")
    table = heads("compare", "--certainty", "--shots", "2").out
    head, *rows = (line.split("\t") for line in table.splitlines() if "\t" in line)
    assert head[-4:] == ["ECE before %", "ECE %", "coverage %", "set size"]
    cells = {row[0]: row[-4:] for row in rows}
    assert cells["nearest-mean"] == ["-"] * 4
    assert "-" not in cells["tip-adapter"][:2]
    assert "ECE: expected calibration error" in table
    stated = [json.loads(line) for line in heads("compare", "--json").out.splitlines()]
    by_method = {row["method"]: row["certainty"] for row in stated}
    assert by_method["nearest-mean"] is None
    error = by_method["tip-adapter"]["ece"]
    lines = [n for n in heads("compare", "--csv").out.splitlines() if ",tip-adapter," in n]
    assert any(str(error[0]) in line for line in lines)


def test_an_unknown_calibration_is_told_before_torch_is_loaded(heads: Run, home: Path) -> None:
    answer = heads("train", "gda", "--calibrate-on", "fold")
    assert answer.code != 0
    assert "Unknown calibration 'fold'; did you mean 'folds'?" in answer.err
    refused = heads("train", "stata", "--protocol", "batches", "--calibrate-on", "folds")
    assert "--calibrate-on has no meaning with --protocol batches" in refused.err


def test_short_classes_are_taken_and_said(heads: Run, home: Path) -> None:
    taken = heads("train", "tip-adapter", "--shots", "16")
    assert taken.code == 0
    assert "rust" in taken.err
    assert heads("train", "tip-adapter", "--shots", "16", "--strict-shots").code == 1


def test_an_ensemble_on_an_imbalanced_support(heads: Run, home: Path) -> None:
    given = ["--set", "members=gda,knn:k=1", "--support", "counts:4,2,1", "--seeds", "1"]
    answer = heads("train", "ensemble", *given, "--json")
    assert answer.code == 0, answer.err
    result = from_json(answer.out)
    assert result.config["support"] == "counts:4,2,1"
    assert {"weight of gda", "weight of knn"} <= set(result.chosen[0])
    assert "Imbalanced support" in answer.err
    again = heads("train", "ensemble", *given)
    assert "balanced accuracy" in again.out
    assert "An equal run" in again.err
    table = heads("compare", "--metric", "balanced_accuracy", "--json")
    rows = [json.loads(line) for line in table.out.splitlines()]
    assert {row["metric"] for row in rows} == {"balanced_accuracy"}
    assert "counts:4,2,1" in {row["support"] for row in rows}


def test_stored_draws_are_named(heads: Run, featcache: Run, empty_home: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    labels = np.arange(24) % 3
    empty_home.mkdir()
    np.savez(
        empty_home / "f.npz", train8_features=rows, train8_labels=labels,
        test_features=rows, test_labels=labels, classnames=np.array(["a", "b", "c"]),
    )  # fmt: skip
    featcache("import", "npz", str(empty_home / "f.npz"), "--name", "mine", "--backbone", "B")
    answer = heads("train", "linear-probe", "--shots", "5", "--json")
    assert answer.code == 0, answer.err
    assert "first 5 a class of 'train@8'" in answer.err
    assert any("train@8" in note for note in json.loads(answer.out)["notes"])


def test_a_damaged_cache_is_not_trained_on(
    heads: Run, featcache: Run, empty_home: Path, photos: Path
) -> None:
    command = ("extract", "--backbone", "tiny", "--weights", "random", "--quiet", "--json")
    made = featcache(*command, "--dataset", f"folder:{photos}")
    shard = next((Path(json.loads(made.out)["path"]) / "global").glob("*.h5"))
    whole = bytearray(shard.read_bytes())
    row = 2 * 128  # bytes of an image: float16, 128 numbers, one row behind the other at the end
    for place in range(len(whole) - 30 * row, len(whole), row):
        whole[place] ^= 1
    shard.write_bytes(whole)
    answer = heads("train", "zero-shot", "--quiet")
    assert answer.code == 1
    assert "featcache repair" in answer.err


def test_training_loads_no_encoder(home: Path) -> None:
    code = (
        "import sys\n"
        "sys.argv = ['heads', 'train', 'zero-shot', '--quiet']\n"
        "from cli.heads.app import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "heavy = {'open_clip', 'ot', 'h5py', 'PIL', 'torchvision', 'faiss'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_cache_asked_for_is_not_called_the_last(heads: Run, home: Path) -> None:
    answer = heads("train", "zero-shot", "--dataset", "blobs")
    assert "Using the cache of blobs with tiny (random-0 weights, key " in answer.err
    assert "finished last" not in answer.err


def test_an_unwritable_runs_folder_is_said_before_training(
    heads: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained a run that cannot be stored")

    monkeypatch.setattr("heads.protocols.obtain.obtain", never)
    (tmp_path / "file").write_text("")
    answer = heads("train", "cmm", "--runs", str(tmp_path / "file"))
    assert answer.code == 1
    assert "--runs" in answer.err


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("2", (1, 2)),
        ("4-5", (4, 5)),
        ("5-5", (5,)),
        ("9,1, 3-4", (1, 3, 4, 9)),
        ("42,43", (42, 43)),
    ],
)
def test_seeds_may_be_named(heads: Run, home: Path, tmp_path: Path, text: str, seeds: Any) -> None:
    at = ["--runs", str(tmp_path), "--quiet", "--json"]
    answer = heads("train", "ridge", "--shots", "2", "--seeds", text, *at)
    assert tuple(json.loads(answer.out)["seeds"]) == seeds


WRONG_SEEDS = ["0", "x", "3-1", "1,,2", "1,1", "1-3,2", "0-2", "1,1001", "1001", "-1", ""]


@pytest.mark.parametrize("text", WRONG_SEEDS)
def test_seeds_that_are_none_are_refused(heads: Run, home: Path, text: str) -> None:
    answer = heads("train", "ridge", "--seeds", text)
    assert answer.code == 2
    assert "--seeds" in answer.err


def test_options_of_episodes_say_what_to_add(heads: Run, home: Path) -> None:
    told = heads("train", "ridge", "--ways", "3")
    assert told.code == 2
    assert "--ways is for episodes: add --protocol episodic" in told.err
    assert "--seeds" in heads("train", "ridge", "--seed", "3").err


def test_a_solver_that_stops_early_is_said_and_recorded(heads: Run, home: Path) -> None:
    answer = heads("train", "linear-probe", "--shots", "2", "--set", "max_iter=1", "--json")
    assert "raise max_iter" in answer.err
    assert ".py" not in answer.err
    assert any("raise max_iter" in note for note in from_json(answer.out).notes)


def test_settings_are_recorded_as_numbers(heads: Run, home: Path) -> None:
    answer = heads("train", "cmm", "--shots", "1", "--json", "--set", "steps=2",
                   "--set", "lr=0.01", "--set", "lam=1,2")  # fmt: skip
    config = json.loads(answer.out)["config"]
    assert (config["steps"], config["lr"], config["lam"]) == (2, 0.01, "1,2")


@pytest.mark.long
def test_a_terminal_without_the_characters_shows_others(home: Path) -> None:
    program = (
        "import sys; sys.argv = ['heads', 'train', 'zero-shot']; "
        "from cli.heads.app import main; main()"
    )
    plain = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=plain)
    assert done.returncode == 0, done.stderr
    assert b"top-1" in done.stdout


def test_episodes_from_draw_to_table(heads: Run, home: Path, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path)]
    numbers = ["--ways", "2", "--shots", "1", "--queries", "1", "--episodes", "5"]
    episodic = ["train", "tip-adapter", "--protocol", "episodic", *runs]
    told = heads(*episodic, *numbers)
    assert told.code == 0, told.err
    sentence, folder = told.out.splitlines()
    assert "5 episodes of 2 classes, 1 shot, test): top-1" in sentence
    listed = Path(folder) / "episodes.json"
    again = heads(*episodic, "--episode-list", str(listed), "--json", "--set", "alpha=2")
    assert json.loads(again.out)["config"]["episodes"] == 5
    answer = heads("compare", *runs, "--against", "tip-adapter")
    assert answer.code == 0
    assert "2-way 1 shot" in answer.out
    assert "over tip-adapter" in answer.out
    for wrong in (
        [*episodic, "--seeds", "2"],
        [*episodic, "--shots", "all"],
        [*episodic, "--episode-list", str(listed), "--seed", "0"],
        ["train", "cmm", "--ways", "3"],
        ["train", "cmm", "--protocol", "episode"],
        ["compare", *runs, "--against", "nobody"],
    ):
        assert heads(*wrong).code == 2


def test_batches_and_streams_from_draw_to_table(heads: Run, home: Path, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path)]
    batches = ["train", "stata", "--protocol", "batches", *runs]
    told = heads(*batches, "--batch", "2", "--effective-classes", "1-2", "--repeats", "4")
    assert told.code == 0, told.err
    assert "not ranked with others" in told.err
    sentence, folder = told.out.splitlines()
    assert "4 batches, no shots, test): top-1" in sentence
    assert "zero-shot" in sentence
    listed = str(Path(folder) / "orders.json")
    again = heads("train", "zero-shot", *batches[2:], "--order-list", listed, "--json")
    assert json.loads(again.out)["config"]["effective_classes"] == "1-2"
    stream = ["train", "oga", "--protocol", "stream", *runs, "--batch", "2", "--repeats", "3"]
    told = heads(*stream, "--correlation", "separate")
    assert "3 streams, no shots" in told.out
    assert "worst tenth of the streams" in told.out
    answer = heads("compare", *runs)
    assert "4 batches of list" in answer.out
    assert "stata (transductive)" in answer.out
    assert "oga (online)" in answer.out
    for wrong in (
        [*batches, "--shots", "4"],
        [*batches, "--seeds", "2"],
        [*batches, "--selection", "cv"],
        [*batches, "--split", "train,test"],
        [*batches, "--correlation", "0.1"],
        [*stream, "--effective-classes", "1-4"],
        [*stream, "--ways", "3"],
        [*batches, "--order-list", listed, "--seed", "2"],
        ["train", "stata", "--batch", "3"],
        ["train", "ridge", *batches[2:]],
        ["train", "transclip", *batches[2:]],
    ):
        refused = heads(*wrong)
        assert refused.code == 2, wrong
        assert refused.out == ""
