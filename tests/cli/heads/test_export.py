"""`heads export`: files of a run with its figures, with the tower of its features, or a refusal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import heads as library
from featcache.embedding import embed
from heads.exporting import formats
from heads.exporting.checking import EMBED_TOLERANCE, example_pictures, normalised

Run = Callable[..., Any]


@pytest.fixture
def run(heads: Run, home: Path, tmp_path: Path) -> str:
    answer = heads(
        "train", "ridge", "--shots", "2", "--seeds", "1", "--json", "--quiet",
        "--runs", str(tmp_path / "runs"),
    )  # fmt: skip
    name: str = json.loads(answer.out)["run"]
    return name


def test_the_files_of_a_run_come_with_its_figures(heads: Run, run: str, tmp_path: Path) -> None:
    out, runs = tmp_path / "out", ["--runs", str(tmp_path / "runs")]
    answer = heads("export", run, "--to", "numpy", "--out", str(out), "--json", *runs)
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["files"] == ["README.md", "head.json", "head.npz", "predict.py"]
    assert told["linear"] is True
    assert "folded into one matrix" in answer.err
    card = (out / "README.md").read_text()
    assert "On the test split of blobs, of this head: top-1" in card
    assert f"run {run}" in card
    assert "Licence of the weights: none, as they are random." in card
    assert heads("export", run, "--to", "numpy", "--out", str(out), *runs).code == 2


def test_a_file_where_a_folder_has_to_be_is_told(heads: Run, run: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    out, runs = tmp_path / "file" / "out", ["--runs", str(tmp_path / "runs")]
    answer = heads("export", run, "--to", "numpy", "--out", str(out), *runs)
    assert answer.code == 1
    assert f"{out} was not written (Not a directory). Choose another place" in answer.err


def test_last_is_the_run_stored_last(heads: Run, run: str, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    for name in ("last", "last@1"):
        out = tmp_path / name
        answer = heads("export", name, "--to", "numpy", "--out", str(out), *runs)
        assert answer.code == 0, answer.err
        assert f"run {run}" in (out / "README.md").read_text()
        assert f"Head {run}@1" in answer.err
    answer = heads("export", "last@7", "--to", "numpy", *runs)
    assert answer.code == 2
    assert f"keeps no head of seed '7'; name {run}@1" in answer.err


def test_which_of_several_heads_is_said(heads: Run, home: Path, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    heads("train", "ridge", "--shots", "2", "--seeds", "2", "--quiet", *runs)
    answer = heads("export", "last", "--to", "numpy", "--out", str(tmp_path / "out"), *runs)
    assert (
        "@1: ridge trained on blobs with tiny, 3 classes. The run stored last keeps" in answer.err
    )
    assert "2 heads, of which the first is taken; last@2 is the next." in answer.err
    answer = heads(
        "export", "last@2", "--to", "numpy", "--out", str(tmp_path / "two"), "--quiet", *runs
    )
    assert (answer.code, answer.err) == (0, "")


def test_a_tampered_head_is_refused(heads: Run, run: str, tmp_path: Path) -> None:
    (file,) = (tmp_path / "runs").glob("*/*/*/head-1.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    copy = tmp_path / "moved.safetensors"
    copy.write_bytes(data)
    shutil.copy(copy, file)
    for name in (run, str(copy)):
        answer = heads("export", name, "--to", "numpy", "--out", str(tmp_path / "out"),
                       "--runs", str(tmp_path / "runs"))  # fmt: skip
        assert answer.code == 1
        assert answer.out == ""
    assert not (tmp_path / "out").exists()


def test_wrong_words_are_told(heads: Run, run: str, tmp_path: Path) -> None:
    for words, said in (
        ([run, "--to", "onxx"], "did you mean 'onnx'"),
        ([run, "--to", "numpy", "--with-backbone"], "--to numpy has none. Leave --with-backbone"),
        (["20200101T000000-none", "--to", "numpy"], "Unknown run"),
    ):
        answer = heads("export", *words, "--runs", str(tmp_path / "runs"))
        assert answer.code == 2
        assert said in answer.err


@pytest.mark.long
@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_with_its_tower_a_head_answers_pixels_as_embed_does(
    to: str, heads: Run, run: str, tmp_path: Path
) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    out, runs = tmp_path / "out", tmp_path / "runs"
    answer = heads(
        "export", run, "--to", to, "--with-backbone", "--out", str(out), "--runs", str(runs)
    )
    assert answer.code == 0, answer.err
    head = library.load(run, root=runs)
    from featcache.backbones.registry import load_backbone

    backbone = load_backbone("tiny", weights="random", device="cpu", compute="fp32")
    pictures = example_pictures(backbone.image_size)[::-1].copy()
    logits, _ = formats.WRITERS[to][1](out)(normalised(pictures, backbone).numpy())
    expected = head.logits(embed(list(pictures), backbone))
    largest = max(1.0, float(expected.abs().max()))
    assert float((torch.from_numpy(logits) - expected).abs().max()) / largest < EMBED_TOLERANCE
    assert np.ptp(logits, axis=0).max() > 0  # pictures differ
    facts = json.loads((out / "head.json").read_text())
    assert facts["input"] == {"name": "pixels", "shape": ["n", 3, 96, 96], "dtype": "float32"}
    assert [one["tolerance"] for one in facts["compared"]] == [1e-3, 1e-2]
