"""A head on a few photographs, and servers of it that need no socket."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from tests.heads.photographs import BATCH, extracted

if TYPE_CHECKING:
    from fastapi import FastAPI
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
    """Return a maker of clients of a server, which is closed at the end.

    Its micro-batch is that of the cache, so that bits can be compared.
    """
    from fastapi.testclient import TestClient

    from heads.serve.app import make_app

    services: list[Service] = []

    def make(
        trained: Head = head,
        *,
        limits: Limits | None = None,
        micro_batch: int | None = BATCH,
        **asked: Any,
    ) -> "TestClient":
        predictor = Predictor(trained, top=2, device="cpu", asked=Asked(**asked))
        services.append(Service(predictor, limits or Limits(), micro_batch=micro_batch))
        app = make_app(services[-1], Hosts.of("127.0.0.1", ["lab.example.org"]))
        app.state.service = services[-1]
        return TestClient(app, base_url="http://127.0.0.1:8000")

    yield make
    for service in services:
        service.close()


@contextmanager
def listening(app: "FastAPI", limits: Limits) -> Iterator[str]:
    """Serve an application at a free port while the block runs; yield its address."""
    from heads.serve.running import listen, server_of, url_of

    server = server_of(app, limits)
    with listen("127.0.0.1", 0) as opened:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        yield url_of(opened, "127.0.0.1")
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
