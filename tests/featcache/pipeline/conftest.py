"""What tests of a pass ask for by name."""

import pytest

from featcache.pipeline import plan


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows a shard, so that the few images make several."""
    monkeypatch.setattr(plan, "shard_rows_for", lambda *_: 4)
