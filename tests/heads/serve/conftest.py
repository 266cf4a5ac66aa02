"""A head on a few photographs, and servers of it that need no socket."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from featcache.types import FeatureSet
from heads.api import fit
from heads.certainty.asked import Asked
from heads.head import Head
from heads.predicting import Predictor
from heads.serve.hosts import Hosts
from heads.serve.limits import Limits
from heads.serve.service import Service
from tests.heads.photographs import extracted

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

NAMES = {"ant": "ant", "bee": "<b>bee</b>", "fly": "fly\u202e"}
"""Class folder -> name, as a stranger may choose it."""

Serve = Callable[..., "TestClient"]


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    """Skip what needs a package that is not there."""
    for package in ("fastapi", "uvicorn", "python_multipart", "httpx"):
        pytest.importorskip(package, reason=f"{package} is of the extras serve and dev")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """Photographs through a real pass with the embedded model."""
    home = tmp_path_factory.mktemp("served")
    return extracted(home, tuple(NAMES), {"train": 2, "val": 1, "test": 3}, patches=())


@pytest.fixture(scope="session")
def photos(cache: FeatureSet) -> list[Path]:
    root = Path(cache.listing.root)
    return [root / cache.listing.ids[row] for row in cache.listing.rows("test")]


@pytest.fixture(scope="session")
def head(cache: FeatureSet) -> Head:
    """Calibrated, with names of classes that mean something in HTML."""
    head = fit("gda", cache, shots=2, calibrate_on="folds", device="cpu")
    return replace(head, classes=tuple(NAMES.values()))


@pytest.fixture
def serve(head: Head) -> Iterator[Serve]:
    """Return a maker of clients of a server, which is closed at the end."""
    from fastapi.testclient import TestClient

    from heads.serve.app import make_app

    services: list[Service] = []

    def make(trained: Head = head, *, limits: Limits | None = None, **asked: Any) -> "TestClient":
        predictor = Predictor(trained, top=2, device="cpu", asked=Asked(**asked))
        services.append(Service(predictor, limits or Limits()))
        app = make_app(services[-1], Hosts.of("127.0.0.1", ["lab.example.org"]))
        app.state.service = services[-1]
        return TestClient(app, base_url="http://127.0.0.1:8000")

    yield make
    for service in services:
        service.close()
