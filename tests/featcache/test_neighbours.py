import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache import neighbours
from featcache.errors import UsageError
from featcache.neighbours import nearest


def unit(seed: int, n: int, d: int = 8) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_finds_what_sorting_finds(index: neighbours.Index) -> None:
    if index == "faiss":
        pytest.importorskip("faiss")
    queries, keys = unit(0, 5), unit(1, 40)
    products, rows = nearest(queries, keys, 7, index=index)
    expected = [sorted(range(40), key=lambda i: -float(q @ keys[i]))[:7] for q in queries]
    assert rows.tolist() == expected
    assert torch.allclose(products, torch.gather(queries @ keys.T, 1, rows), atol=1e-6)


@pytest.mark.parametrize("block", [1, 16, 35, 200])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = unit(0, 5), unit(1, 40)
    whole = nearest(queries, keys, 6)
    monkeypatch.setattr(neighbours, "BLOCK", block)
    again = nearest(queries, keys, 6)
    assert torch.equal(again[1], whole[1])
    assert torch.allclose(again[0], whole[0])


@pytest.mark.parametrize(("m", "k"), [(400, 3), (403, 12), (407, 13), (96, 3), (95, 3)])
def test_long_rows_are_searched_by_groups(m: int, k: int) -> None:
    queries, keys = unit(2, 6).double(), unit(3, m).double()
    keys[-1] = queries[0]  # the end of the row belongs to no group
    products, rows = nearest(queries, keys, k)
    assert rows[0, 0] == m - 1
    expected = torch.sort(queries @ keys.T, dim=-1, descending=True)
    assert torch.equal(rows, expected.indices[:, :k])
    assert torch.equal(products, expected.values[:, :k])


@pytest.mark.parametrize("k", [0, 41])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(UsageError, match="between 1 and the 40 rows"):
        nearest(unit(0, 5), unit(1, 40), k)


def test_missing_faiss_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"pip install 'featcache\[cpu\]'"):
        nearest(unit(0, 5), unit(1, 40), 3, index="faiss")
