"""What is wrong with a call is told before torch is loaded, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PHOTOS, DRAWN = "folder:{photos}", "fieldguide"
CALLS = {
    "featcache": [
        (["extract", "--backbone", "tiny"], 2, "--dataset"),
        (["extract", "--dataset", DRAWN, "--backbone", "vit-b16"], 2, "ViT-B"),
        (["extract", "--dataset", DRAWN, "--weights", "no.safetensors"], 1, "no.safetensors"),
        (["extract", "--dataset", DRAWN, "--weights", "no.pt"], 1, "no.pt"),
        (["extract", "--dataset", "fieldgide"], 2, "fieldguide"),
        (["extract", "--dataset", "folder:/no/such"], 1, "/no/such"),
        (["extract", "--dataset", "folder:{empty}"], 1, "no images"),
        (["extract", "--dataset", PHOTOS, "--views", "ten"], 2, "--views"),
        (["extract", "--dataset", PHOTOS, "--patches", "none,vanilla"], 2, "--patches"),
        (["extract", "--dataset", PHOTOS, "--descriptions", "no.json"], 2, "no.json"),
        (["extract", "--dataset", PHOTOS, "--cupl", "no.json"], 2, "no.json"),
        (["extract", "--dataset", PHOTOS, "--templates", "no.txt"], 2, "no.txt"),
        (["extract", "--dataset", PHOTOS, "--compute", "fp64"], 2, "fp32"),
        (["extract", "--dataset", PHOTOS, "--name", "../x"], 2, "--name"),
        (["extract", "--dataset", PHOTOS, "--profile-to", "/no/such/x"], 2, "--profile-to"),
        (["search"], 2, "--row"),
        (["search", "a dog", "-k", "0"], 2, "--k"),
        (["search", "no.jpg"], 2, "no.jpg"),
        (["search", "--image", "no.jpg"], 2, "--text"),
        (["search", "--class", "rsut"], 2, "rust"),
        (["search", "--row", "rust/99.png"], 2, "rust/9.png"),
        (["search", "a dog", "--in", "blob"], 2, "blobs"),
        (["search", "a dog", "--split", "tset"], 2, "test"),
        (["search", "a dog", "--sheet", "/no/such/x.html"], 2, "/no/such"),
        (["search", "a dog", "--sheet", "x.pdf"], 2, ".html"),
        (["export", "blobs", "--to", "parqet"], 2, "parquet"),
        (["export", "blobs", "--projection", "pac"], 2, "pca"),
        (["export", "blobs", "--neighbors", "-1"], 2, "--neighbors"),
        (["export", "blobs", "--thumbnails", "2000"], 2, "--thumbnails"),
        (["export", "blob"], 2, "blobs"),
        (["import", "npz", "no.npz", "--name", "a", "--backbone", "b"], 1, "no.npz"),
    ],
    "heads": [
        (["train", "cmn"], 2, "cmm"),
        (["train", "cmm", "--shots", "many"], 2, "--shots"),
        (["train", "cmm", "--dataset", "blob"], 2, "blobs"),
        (["train", "cmm", "--backbone", "RN50"], 2, "tiny"),
        (["train", "cmm", "--key", "zz"], 2, "key"),
        (["train", "cmm", "--split", "tset"], 2, "test"),
        (["train", "cmm", "--set", "alpah=1"], 2, "alpha"),
        (["train", "cmm", "--support", "long-tail:2"], 2, "between 0 and 1"),
        (["train", "cmm", "--selection", "tset"], 2, "oracle"),
        (["train", "cmm", "--protocol", "episodic", "--selection", "oracle"], 2, "cv"),
        (["export", "no-such-run", "--to", "onxx"], 2, "onnx"),
        (["export", "no-such-run"], 2, "no-such-run"),
        (["compare", "--dataset", "x", "--runs", "{empty}"], 1, "heads train"),
        (["predict", "last", "a.jpg", "--runs", "{empty}"], 1, "heads train"),
        (["predict", "x.head", "a.jpg", "--dataset", "blobs"], 2, "--dataset; not both."),
        (["predict", "x.head"], 2, "as `heads predict last new/` does"),
        (["predict", "x.head", "a.jpg", "--top", "0"], 2, "--top"),
        (["predict", "x.head", "a.jpg", "--format", "cvs"], 2, "csv"),
        (["predict", "x.head", "a.jpg", "--out", "a.txt"], 2, "--format"),
        (["predict", "x.head", "a.jpg", "--format", "parquet"], 2, "--out"),
        (["predict", "x.head", "a.jpg", "--column", "path"], 2, "no table"),
        (["predict", "x.head", "foldr:new"], 2, "folder"),
        (["predict", "x.head", "{empty}"], 1, "no images"),
        (["predict", "x.head", "--dataset", "blob"], 2, "blobs"),
        (["predict", "x.head", "--dataset", "blobs", "--split", "tset"], 2, "test"),
        (["ls", "--dataset", "x"], 2, "data set of the runs"),
        (["info", "20261130"], 2, "Unknown run"),
        (["rm", "20261130", "--yes"], 2, "Unknown run"),
    ],
}
SCRIPT = """
import contextlib, io, json, sys
from importlib import import_module
program, calls = json.loads(sys.argv[1])
main = import_module(f"cli.{program}.app").main
for arguments in calls:
    sys.argv = [program, *arguments]
    err = io.StringIO()
    code = 0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, err.getvalue(), "torch" in sys.modules]))
"""


@pytest.mark.parametrize("program", CALLS)
def test_wrong_input_is_told_without_torch(
    program: str, home: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATCACHE_HOME", str(home))
    (empty := tmp_path / "empty").mkdir()
    calls = [
        [a.format(photos=photos, empty=empty) for a in arguments]
        for arguments, _, _ in CALLS[program]
    ]
    command = [sys.executable, "-c", SCRIPT, json.dumps([program, calls])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(calls)
    for (arguments, code, says), (got, err, has_torch) in zip(CALLS[program], answers, strict=True):
        assert got == code, (arguments, err)
        assert says in err, arguments
        assert not has_torch, arguments
