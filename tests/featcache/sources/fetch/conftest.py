"""A server, and waits that a test can wait for."""

import hashlib
import os
from collections.abc import Callable, Iterator

import pytest

from featcache.sources.fetch import download
from featcache.sources.fetch.archive import Archive
from tests.featcache.sources.fetch.serving import FileServer, serving


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0, 0.01))
    monkeypatch.setattr(os, "sync", lambda: None)  # takes seconds where others write
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def describe() -> Callable[..., Archive]:
    """Describe a file with everything that vouches for it."""

    def make(data: bytes, *urls: str, file: str = "pets.zip", **more: object) -> Archive:
        sums = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return Archive(file, urls, **{**sums, **more})  # type: ignore[arg-type]

    return make
