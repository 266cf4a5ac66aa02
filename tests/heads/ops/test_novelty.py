"""Strangeness and its AUROC against slow loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import UnknownNameError
from heads.ops.novelty import auroc, novelty

VALUES = st.lists(st.integers(0, 5), min_size=1, max_size=20)


@given(known=VALUES, novel=VALUES)
def test_auroc_counts_pairs(known: list[int], novel: list[int]) -> None:
    pairs = [(b > a) + 0.5 * (b == a) for a in known for b in novel]
    found = auroc(torch.tensor(known).double(), torch.tensor(novel).double())
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_energy_is_that_of_a_loop() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    for t in (0.5, 1.0, 3.0):
        found = novelty(logits, "energy", t)
        for z, energy in zip(logits.tolist(), found.tolist(), strict=True):
            assert energy == pytest.approx(-t * math.log(sum(math.exp(v / t) for v in z)))
    assert torch.equal(novelty(logits, "max-logit", 3.0), -logits.max(1).values)


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="max-logit"):
        novelty(torch.zeros(1, 2), "max-logits")
