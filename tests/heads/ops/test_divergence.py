"""Divergences of all pairs against torch's own, and ranges over pairs of different rows."""

import torch
from torch.nn import functional as F

from heads.ops.divergence import divergences, pair_range


def test_divergences_equal_torchs() -> None:
    rng = torch.Generator().manual_seed(0)
    p = torch.randn(5, 7, generator=rng, dtype=torch.float64).log_softmax(-1)
    q = torch.randn(6, 7, generator=rng, dtype=torch.float64).log_softmax(-1)
    found = divergences(p, q)
    for i in range(5):
        for j in range(6):
            one = F.kl_div(q[j], p[i], log_target=True, reduction="sum")
            torch.testing.assert_close(found[i, j], one)


def test_a_range_leaves_out_a_row_and_itself() -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    every = torch.cdist(x, x)
    pairs = every[~torch.eye(300, dtype=torch.bool)]
    low, high = pair_range(lambda some: every[some], 300, 300)
    assert (float(low), float(high)) == (float(pairs.min()), float(pairs.max()))
    some = torch.arange(0, 300, 30)
    low, high = pair_range(lambda rows: every[rows], 300, 10)
    mask = torch.ones(10, 300, dtype=torch.bool)
    mask[torch.arange(10), some] = False
    assert float(high) == float(every[some][mask].max())
    assert float(low) == float(every[some][mask].min())
