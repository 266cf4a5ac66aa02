import pytest
import torch

from heads.ops.attention import Pick, pick


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
