from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from cli.featcache.app import app as featcache_app
from cli.heads.app import app as heads_app

CLASSES = {"plum": (120, 40, 120), "lime": (140, 220, 60), "rust": (180, 80, 30)}
EACH = 10


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Run = Callable[..., Answer]


def call(app: Typer, arguments: Sequence[str], stdin: bytes | None = None) -> Answer:
    done = CliRunner().invoke(app, list(arguments), input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Answer(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def featcache() -> Run:
    return lambda *arguments: call(featcache_app, arguments)


@pytest.fixture
def heads() -> Run:
    return lambda *arguments: call(heads_app, arguments)


def paint(folder: Path) -> Path:
    rng = np.random.default_rng(7)
    for name, colour in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = np.clip(np.array(colour) + rng.integers(-50, 50, (40, 48, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("pictures") / "blobs")


@pytest.fixture(scope="session")
def full_home(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with one finished cache; tests only add runs to it."""
    home = tmp_path_factory.mktemp("home")
    answer = call(
        featcache_app,
        ["extract", "--backbone", "tiny", "--weights", "random", "--dataset", f"folder:{photos}",
         "--views", "2", "--quiet", "--cache", str(home)],
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return home


@pytest.fixture
def home(full_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATCACHE_HOME", str(full_home))
    return full_home


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
