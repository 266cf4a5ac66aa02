"""Caches that tests only read, and a maker of caches of random vectors."""

from pathlib import Path

import pytest

from featcache.pipeline import extraction, opening
from featcache.pipeline.run import Request, extract
from featcache.store.cache import Cache
from featcache.types import FeatureSet
from tests.featcache.conftest import FakeBackbone, paint_zoo
from tests.featcache.retrieval.random_caches import Make, make_cache


@pytest.fixture(scope="session")
def zoo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of caches with `zoo` and, of the same images, `other`."""
    place = tmp_path_factory.mktemp("retrieval")
    images, made = paint_zoo(place / "zoo"), FakeBackbone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "load_backbone", lambda *_, **__: made)
        for checked in ("check_known", "choose"):
            patch.setattr(opening, checked, lambda name, weights: None)
        for name, patches in (("zoo", "clearclip"), ("other", "vanilla")):
            extract(
                Request(
                    dataset=f"folder:{images}",
                    name=name,
                    backbone="fake",
                    root=place / "cache",
                    micro_batch=4,
                    patches=[patches],
                )
            )
    return place / "cache"


@pytest.fixture(scope="session")
def zoo(zoo_home: Path) -> FeatureSet:
    (path,) = (zoo_home / "zoo").glob("fake-*")
    return Cache.open(path).feature_set()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a cache below tmp_path / "root"."""
    return lambda *args, **more: make_cache(tmp_path / "root", *args, **more)
