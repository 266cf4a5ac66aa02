from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.ops import neighbours as ops


def test_neighbours_are_exact_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = F.normalize(torch.randn(23, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    cosines = (x @ x.T).fill_diagonal_(-2)
    expected = cosines.sort(dim=-1, descending=True)
    for size in (1, 23 * 4 * 5, 2**20):
        monkeypatch.setattr(ops, "SIMILARITIES", size)
        values, index = ops.neighbours(x, x, 3, left_out="self")
        assert torch.equal(index, expected.indices[:, :3])
        torch.testing.assert_close(values, expected.values[:, :3])


def test_a_row_is_no_neighbour_of_its_own_among_copies() -> None:
    x = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    _, index = ops.neighbours(x, x, 3, left_out="self")
    assert not bool((index == torch.arange(6)[:, None]).any())


def test_no_more_memory_is_held_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    whole = ops._most_similar

    def noted(cosines: Tensor, *rest: Any) -> Any:
        held.append(cosines.nbytes)
        return whole(cosines, *rest)

    monkeypatch.setattr(ops, "_most_similar", noted)
    monkeypatch.setattr(ops, "SIMILARITIES", 4000)
    x = F.normalize(torch.randn(100, 5), dim=-1)
    ops.neighbours(x, x, 3, left_out="self")
    assert max(held) <= 4000
    assert sum(held) == 4 * 100 * 100
