"""A head on a few photographs, and servers of it that need no socket."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from featcache.pipeline.run import Request, extract
from featcache.store.cache import Cache
from featcache.types import FeatureSet
from heads.api import fit
from heads.certainty.asked import Asked
from heads.head import Head
from heads.predicting import Predictor
from heads.serve.hosts import Hosts
from heads.serve.limits import Limits
from heads.serve.service import Service
from tests.featcache.conftest import picture

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

BATCH = 4
"""Images in a batch: a batch of the usual size takes seconds."""
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
    root = tmp_path_factory.mktemp("served") / "zoo"
    for split, each in (("train", 2), ("val", 1), ("test", 3)):
        for number, name in enumerate(NAMES):
            where = root / split / name
            where.mkdir(parents=True)
            for i in range(each):
                seed = 100 * number + 10 * i + len(split)
                picture(seed, (40 + 3 * i, 60)).save(where / f"{i}.jpg", quality=90)
    descriptions = root.parent / "descriptions.json"
    descriptions.write_text(json.dumps({name: [f"a small {name}."] for name in NAMES}))
    request = Request(
        dataset=f"folder:{root}",
        backbone="tiny",
        root=root.parent / "home",
        descriptions=descriptions,
        patches=(),
        micro_batch=BATCH,
    )
    return Cache.open(extract(request).path).feature_set()


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
