"""`heads serve` as a process: its address, one answer, its end."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import heads

Run = Callable[..., Any]

SECONDS = 90
"""Longest wait; machines that run tests are busy."""
COMMAND = [sys.executable, "-c", "from cli.heads.app import main; main()", "serve", "last@1"]


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    for package in ("fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(package, reason=f"{package} is of the extras serve and dev")


@contextmanager
def served(home: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", Any]]:
    """Start a server; return it with what it printed, and kill it at the end."""
    errors = home / "serve.err"
    with errors.open("wb") as said:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--json", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "FEATCACHE_HOME": str(home)},
        )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], SECONDS)[0], errors.read_text()
        line = process.stdout.readline()
        assert line, errors.read_text()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def answer_of(url: str, photo: Path) -> Any:
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    request = urllib.request.Request(
        f"{url}predict",
        head + photo.read_bytes() + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)["predictions"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)], ids=str
)
def test_it_prints_its_address_answers_and_ends(
    quick_home: Path, photos: Path, number: signal.Signals
) -> None:
    photo = photos / "lime" / "0.png"
    with served(quick_home, "--top", "2") as (process, facts):
        assert facts["url"].startswith("http://127.0.0.1:")
        assert facts["method"] == "gda"
        assert facts["classes"] == ["lime", "plum", "rust"]
        (found,) = answer_of(facts["url"], photo)
        assert found["image"] == "a.png"
        assert found["problem"] == ""
        assert len(found["candidates"]) == 2
        start = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=SECONDS) == 0
        assert time.monotonic() - start < 20
    said = (quick_home / "serve.err").read_text()
    assert "Traceback" not in said
    assert "keeps no calibration rows" in said
    assert "--calibrate-on folds" in said


def test_a_place_that_only_a_strangers_file_names_is_not_loaded(
    answered: Run, quick_home: Path, tmp_path: Path
) -> None:
    head = heads.load("last@1", root=quick_home / "runs")
    place = tmp_path / "towers.safetensors"
    file = tmp_path / "theirs.head"
    replace(head, about={**head.about, "weights": str(place)}).save(file)
    refused = answered("serve", str(file), "--port", "0")
    assert refused.code == 1
    assert f"The file of this head names the weights {place}" in refused.err
    assert "name it yourself with --weights and --backbone" in refused.err
    named = answered("serve", str(file), "--port", "0", "--weights", str(place))
    assert named.code in (1, 2)
    assert "names the weights" not in named.err
    assert place.name in named.err
