"""Exact search in blocks finds what sorting all cosines finds."""

from typing import Any

import pytest
import torch

from featcache.errors import UsageError
from featcache.retrieval import vectors as module
from featcache.retrieval.exact import search_exactly
from featcache.retrieval.vectors import Vectors
from featcache.store.cache import Cache


@pytest.fixture
def vectors(ask: Any) -> Vectors:
    return Vectors([Cache.open(ask().path).feature_set()], "patches")


@pytest.mark.parametrize("block_bytes", [1, 2000, 2**26])
def test_finds_what_sorting_finds(
    vectors: Vectors, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    whole = torch.cat(list(vectors.blocks()))
    queries = whole[[3, 40]]
    seen: list[int] = []
    cosines, at = search_exactly(vectors, queries, 5, progress=lambda done, _: seen.append(done))
    assert torch.allclose(cosines, (queries @ whole.mT).sort(descending=True).values[:, :5])
    assert torch.allclose((whole[at] * queries[:, None]).sum(-1), cosines, atol=1e-6)
    assert seen[-1] == len(vectors)


def test_what_is_not_allowed_is_not_found(vectors: Vectors) -> None:
    queries = vectors.take(torch.tensor([3, 40]).numpy())
    _, at = search_exactly(vectors, queries, 5, allowed=lambda p: (p % 2 == 0).expand(2, -1))
    assert bool((at % 2 == 0).all())


def test_wrong_queries_are_refused(vectors: Vectors) -> None:
    with pytest.raises(UsageError, match="between 1 and"):
        search_exactly(vectors, torch.ones(1, vectors.dim), 10**6)
    with pytest.raises(UsageError, match="width 3"):
        search_exactly(vectors, torch.ones(1, 3), 1)
