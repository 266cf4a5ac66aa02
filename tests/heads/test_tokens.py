"""Tokens as a method reads them: raw, and only when they are gathered."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import MissingComponentError
from featcache.types import FeatureSet
from featcache.wording import Call
from heads.contract.method import Method, Need
from heads.contract.rows import Kind, LazyRows, Rows, TaskView, Tensors
from heads.contract.settings import Nothing
from heads.ops.algebra import sum_by_label
from tests.heads.conftest import MemoryRows, make_world
from tests.heads.toy_tasks import fitted, make_task

TOKENS = "tokens.last-block"
NEEDS = frozenset(
    Need(role=role, kind=kind) for role in ("support", "query") for kind in ("global", "tokens")
)
BATCH = 7


@dataclass
class CountedRows(MemoryRows):
    """Rows that remember how many of them were read at once."""

    reads: list[int] = field(default_factory=list)

    def take(self, rows: np.ndarray) -> Tensor:
        self.reads.append(len(rows))
        return super().take(rows)


def prepare(task: TaskView, config: Nothing, hyper: Nothing) -> tuple[Tensors, Tensors]:
    """Average the class tokens of each class, a batch of images at a time."""
    tokens = task.support.kinds[Kind("tokens")]
    assert not isinstance(tokens, Tensor)
    batches = torch.split(torch.arange(len(task.support)), BATCH)
    parts = [tokens.gather(index)[:, 0] for index in batches]
    means = sum_by_label(torch.cat(parts).T, task.support.y, classes=task.c)
    return {}, {"means": F.normalize(means.T, dim=-1)}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Nothing, hyper: Nothing) -> Tensors:
    tokens = rows.get("tokens")
    assert tokens is not None
    return {"logits": F.normalize(tokens[:, 0], dim=-1) @ fixed["means"].T}


METHOD = Method(
    name="class-tokens",
    summary="Nearest mean of class tokens.",
    source="ours",
    needs=lambda config: NEEDS,
    prepare=prepare,
    terms=terms,
)


@pytest.fixture
def features() -> FeatureSet:
    made = make_world(also={TOKENS: (5,)})
    rows = made.components[TOKENS]
    assert isinstance(rows, MemoryRows)
    made.components[TOKENS] = CountedRows(rows.values, rows.covered)  # type: ignore[index]
    return made


def test_a_method_reads_tokens_when_it_gathers_them(features: FeatureSet) -> None:
    counted = features.components[TOKENS]
    assert isinstance(counted, CountedRows)
    episode = make_task(features, METHOD)
    assert counted.reads == []
    lazy = episode.view.support.kinds[Kind("tokens")]
    assert isinstance(lazy, LazyRows)
    assert lazy.shape == (60, 5, 16)
    head = fitted(METHOD, episode.view)
    assert max(counted.reads) == BATCH
    queries = episode.queries["test"].rows
    expected = features.rows(TOKENS, features.usable("test")).float()
    train = features.usable("train")
    first = features.rows(TOKENS, train)[:, 0].float()
    labels = torch.from_numpy(features.labels[train])
    means = torch.stack([first[labels == c].sum(0) for c in range(5)])
    cosines = F.normalize(expected[:, 0], dim=-1) @ F.normalize(means, dim=-1).T
    torch.testing.assert_close(head.logits(queries), cosines)
    got = queries.get("tokens")
    assert got is not None
    assert torch.equal(got, expected)  # raw: their length counts
    assert not torch.allclose(got.norm(dim=-1), torch.ones(len(got), 5))


@pytest.mark.parametrize(
    ("role", "value"), [("support", "last-block@few-shot"), ("query", "last-block@query")]
)
def test_what_lacks_comes_with_the_call_that_adds_it(role: str, value: str) -> None:
    needs = frozenset({Need(role="query"), Need(role="support"), Need(role=role, kind="tokens")})  # type: ignore[arg-type]
    method = Method(
        name="t", summary="", source="", needs=lambda config: needs, prepare=prepare, terms=terms
    )
    with pytest.raises(MissingComponentError) as caught:
        make_task(make_world(), method)
    wanted = {"dataset": "toy", "backbone": "tiny", "tokens": [value]}
    assert caught.value.suggestion == Call("featcache.extract", wanted)


def test_rows_in_no_cache_have_no_last_block() -> None:
    with pytest.raises(MissingComponentError, match="no cache with tokens"):
        make_world().last_block()
