"""What the cycles measure; their losses are tested with their method, against loops."""

import pytest
import torch
from torch.nn import functional as F

from heads.ops.attention import Pick
from heads.ops.cycles import share_right, text_cycle


def test_patches_of_unknown_images_and_left_out_ones_do_not_count() -> None:
    cosine = torch.tensor([[[0.9, 0.1], [0.2, 0.3], [0.5, 0.4], [0.1, 0.2]]])
    owner = torch.tensor([[0, 0, -1, 1]])
    assert float(share_right(cosine, owner, torch.ones(1, 4))) == pytest.approx(2 / 3)
    assert float(share_right(cosine, owner, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))) == 0.5
    assert float(share_right(cosine, torch.full((1, 4), -1), torch.ones(1, 4))) == 0


@pytest.mark.parametrize("cycle", ["soft", "literal", "straight-through"])
def test_a_text_without_a_patch_of_its_own_does_not_close(cycle: Pick) -> None:
    """Three texts; the patches lie near the first two only."""
    texts = torch.eye(3)
    patches = F.normalize(torch.tensor([[[1.0, 0.1, 0.0], [0.1, 1.0, 0.0]]]), dim=-1)
    kept = torch.ones(1, 2)
    given = texts, patches, patches @ texts.mT, kept
    _, closed = text_cycle(*given, cycle=cycle, tau=0.05, tau_back=0.05)
    assert float(closed) == pytest.approx(2 / 3)
    some = torch.tensor([2, 0])
    _, closed = text_cycle(*given, cycle=cycle, tau=0.05, tau_back=0.05, at=some)
    assert float(closed) == pytest.approx(1 / 2)
