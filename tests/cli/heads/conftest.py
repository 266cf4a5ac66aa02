from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.featcache.app import app as featcache_app
from cli.heads.app import app as heads_app
from tests.cli.conftest import call


@pytest.fixture(scope="session")
def quick_home(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in small batches, so that single images are encoded quickly, and two runs on it."""
    home = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATCACHE_HOME", str(home))
        given = ["--backbone", "tiny", "--weights", "random", "--micro-batch", "4", "--quiet"]
        answer = call(featcache_app, ["extract", "--dataset", f"folder:{photos}", *given])
        assert answer.code == 0, answer.err
        for method in ("knn", "gda"):
            answer = call(heads_app, ["train", method, "--shots", "2", "--seeds", "2", "--quiet"])
            assert answer.code == 0, answer.err
    return home


@pytest.fixture
def answered(quick_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `heads` where there are runs."""
    monkeypatch.setenv("FEATCACHE_HOME", str(quick_home))
    return lambda *arguments, **more: call(heads_app, arguments, **more)
