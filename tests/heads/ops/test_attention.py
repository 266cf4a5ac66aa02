import math

import pytest
import torch

from heads.ops.attention import Pick, confidence, pick, pool_confident


@pytest.mark.parametrize("how", ["soft", "literal", "straight-through"])
def test_what_is_not_allowed_is_not_picked(how: Pick) -> None:
    scores = torch.tensor([[0.0, 3.0, 1.0]])
    weight = pick(scores, how, torch.tensor([[True, False, True]]))
    assert float(weight[0, 1]) == 0
    assert float(weight.sum()) == pytest.approx(1)
    assert int(weight.argmax()) == 2


def test_straight_through_is_hard_forwards_and_soft_backwards() -> None:
    value = torch.tensor([1.0, 2.0, 4.0])
    slopes = {}
    for how in ("soft", "literal", "straight-through"):
        scores = torch.tensor([[0.2, 0.1, 0.0]], requires_grad=True)
        weight = pick(scores, how)
        if how != "soft":
            torch.testing.assert_close(weight.detach(), torch.tensor([[1.0, 0.0, 0.0]]))
        if weight.requires_grad:
            (slopes[how],) = torch.autograd.grad((weight @ value).sum(), scores)
    assert set(slopes) == {"soft", "straight-through"}
    torch.testing.assert_close(slopes["soft"], slopes["straight-through"])


def test_confidence_weighs_by_the_best_class() -> None:
    rows = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]], dtype=torch.float64)
    anchors = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    best = [max(a * p[0] + b * p[1] for a, b in anchors.tolist()) for p in rows[0].tolist()]
    powers = [math.exp(3.0 * value) for value in best]
    expected = torch.tensor([[p / sum(powers) for p in powers]], dtype=torch.float64)
    torch.testing.assert_close(confidence(rows, anchors, 3.0), expected)
    pooled = (expected[..., None] * rows).sum(1)
    torch.testing.assert_close(pool_confident(rows, anchors, 3.0), pooled / pooled.norm())
    torch.testing.assert_close(confidence(rows, anchors, 0.0), torch.full((1, 3), 1 / 3).double())
