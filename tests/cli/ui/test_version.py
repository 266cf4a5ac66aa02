"""`--version` of both programs: versions without an import, the device last."""

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest

from cli.ui import version

Run = Callable[..., Any]


@pytest.mark.parametrize("program", ["featcache", "heads"])
def test_versions_and_the_device(program: str, request: pytest.FixtureRequest) -> None:
    answer = request.getfixturevalue(program)("--version")
    assert answer.code == 0
    names = [line.partition(" ")[0] for line in answer.out.splitlines()]
    assert names == ["featcache", "torch", "open_clip", "faiss", "device"]
    assert f"torch {metadata.version('torch')}\n" in answer.out
    assert answer.out.splitlines()[-1].split()[1] in ("cpu", "cuda")
    assert answer.err == ""


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "version_of", lambda package: "")

    def broken() -> str:
        raise ImportError("no libtorch")

    monkeypatch.setattr(version, "device_text", broken)
    assert version.version_lines() == [
        "featcache not installed",
        "torch not installed",
        "open_clip not installed",
        "faiss not installed",
        "device unknown (no libtorch)",
    ]


def test_nothing_but_torch_is_loaded_for_it() -> None:
    code = (
        "import sys\n"
        "from cli.ui.version import version_of, faiss_version\n"
        "version_of('torch'), faiss_version()\n"
        "print({'torch', 'faiss', 'open_clip', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
