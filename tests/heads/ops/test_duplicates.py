"""Rows that are in both sets are found, others are not, in any order and number."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from heads.ops.duplicates import SAME, in_both


@given(seed=st.integers(0, 1000), shared=st.integers(0, 12), noise=st.sampled_from([0.0, 1e-7]))
def test_shared_rows_are_found_and_no_others(seed: int, shared: int, noise: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    others = F.normalize(torch.randn(30, 8, generator=rng), dim=-1)
    own = F.normalize(torch.randn(12 - shared, 8, generator=rng), dim=-1)
    rows = torch.cat([own, others[torch.randperm(30, generator=rng)[:shared]] + noise])
    order = torch.randperm(12, generator=rng)
    expected = (torch.cdist(rows.double(), others.double()) <= SAME).any(1)
    assert int(expected.sum()) == shared
    assert torch.equal(in_both(rows[order], others), expected[order])


def test_many_equal_rows() -> None:
    rows = F.normalize(torch.ones(300, 4), dim=-1)
    assert bool(in_both(rows, rows).all())
    assert not bool(in_both(rows, -rows).any())


def test_rows_on_one_projection_are_told_apart() -> None:
    seeded = torch.Generator().manual_seed(0)
    line = F.normalize(torch.randn(6, generator=seeded, dtype=torch.float64), dim=0)
    turned = F.normalize(torch.randn(200, 6, dtype=torch.float64, generator=seeded), dim=-1)
    level = F.normalize(turned - (turned @ line)[:, None] * line, dim=-1)
    rows, others = level[:100], torch.cat([level[100:], level[7:9]])
    assert torch.nonzero(in_both(rows, others))[:, 0].tolist() == [7, 8]


def test_no_rows() -> None:
    assert in_both(torch.zeros(0, 3), torch.eye(3)).shape == (0,)
    assert in_both(torch.eye(3), torch.zeros(0, 3)).tolist() == [False] * 3
