from collections.abc import Iterator

import pytest

from tests.reliability.killing import Campaign, Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def campaign(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(server, tmp_path_factory.mktemp("kills"))
