import shutil
from pathlib import Path

import pytest

from featcache.store.cache import Cache
from tests.featcache.store.reading.shards import make


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("template")).path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """The same of other images."""
    return make(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def whole(tmp_path: Path, template: Path) -> Cache:
    path = tmp_path / template.parent.name / template.name
    shutil.copytree(template, path)
    return Cache.open(path)
