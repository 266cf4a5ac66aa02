import math

import pytest
import torch
from torch.nn import functional as F

from heads.ops.contrastive import contrast, triplet


def test_triplet_takes_the_closest_wrong_text() -> None:
    cosine = torch.tensor([[0.5, 0.45, -0.9], [0.1, 0.3, 0.9]])
    y = torch.tensor([0, 2])
    assert triplet(cosine, y, 0.2).tolist() == pytest.approx([0.15, 0.0])


def test_contrast_equals_naive_loops() -> None:
    h = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
    y = torch.tensor([0, 1, 0, 1, 0, 2])
    others = ~torch.eye(6, dtype=torch.bool)
    others[0, 4] = False
    got = contrast(h, others, y, 0.3)
    for b in range(6):
        total = sum(math.exp(float(h[b] @ h[a]) / 0.3) for a in range(6) if others[b, a])
        logs = [
            math.log(math.exp(float(h[b] @ h[p]) / 0.3) / total)
            for p in range(6)
            if others[b, p] and y[p] == y[b]
        ]
        assert float(got[b]) == pytest.approx(-sum(logs) / len(logs) if logs else 0.0)
