import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from heads.ops import text_guidance as ops

OWNER = torch.tensor([1, 0, 2, 1, 1, 0])
MATCH = torch.tensor([0.3, -0.1, 0.25, 0.3, 0.1, 0.2], dtype=torch.float64)


def by_class(c: int) -> list[int]:
    return [p for p in range(len(OWNER)) if int(OWNER[p]) == c]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 50.0])
def test_guided_texts_equal_a_softmax_in_loops(gamma: float) -> None:
    rng = torch.Generator().manual_seed(0)
    texts = F.normalize(torch.randn(6, 5, generator=rng, dtype=torch.float64), dim=-1)
    relative = ops.relative_matches(MATCH, OWNER, 3)
    got = ops.guided_texts(texts, OWNER, relative, gamma, 3)
    for c in range(3):
        own = by_class(c)
        length = math.sqrt(sum(float(MATCH[p]) ** 2 for p in own))
        weights = [math.exp(gamma * float(MATCH[p]) / length) for p in own]
        mean = sum(w / sum(weights) * texts[p] for w, p in zip(weights, own, strict=True))
        assert isinstance(mean, torch.Tensor)
        torch.testing.assert_close(got[c], mean / mean.norm(), rtol=1e-12, atol=1e-12)


def test_a_sharp_choice_does_not_overflow() -> None:
    match = torch.tensor([0.9, 0.1, 0.5])
    owner = torch.tensor([0, 0, 1])
    relative = ops.relative_matches(match, owner, 2)
    got = ops.guided_texts(torch.eye(3), owner, relative, 1e4, 2)  # exp(1e4) is not finite
    assert torch.equal(got, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))


def test_a_class_without_matches_weighs_its_texts_alike() -> None:
    relative = ops.relative_matches(torch.zeros(2), torch.zeros(2).long(), 1)
    got = ops.guided_texts(torch.eye(2), torch.zeros(2).long(), relative, 50.0, 1)
    torch.testing.assert_close(got, torch.full((1, 2), 0.5**0.5))


def naive_times(share: float) -> list[int]:
    """Take the first ceil(share p) of the sorted list, written twice, class by class."""
    taken = [0] * len(OWNER)
    for c in range(3):
        best = sorted(by_class(c), key=lambda p: -float(MATCH[p]))
        for p in (best + best)[: math.ceil(round(share * len(best), 6))]:
            taken[p] += 1
    return taken


@settings(deadline=None, max_examples=50)
@given(share=st.integers(1, 20).map(lambda i: i / 10))
def test_times_taken_equal_the_released_slice(share: float) -> None:
    assert ops.times_taken(MATCH, OWNER, share, 3).tolist() == naive_times(share)


def test_tenths_of_ten_give_one_to_ten_of_five() -> None:
    # 0.6 * 5 and the like are whole only up to rounding
    match, owner = torch.rand(5, generator=torch.Generator().manual_seed(1)), torch.zeros(5).long()
    sums = [int(ops.times_taken(match, owner, i * 0.2, 1).sum()) for i in range(1, 11)]
    assert sums == list(range(1, 11))
