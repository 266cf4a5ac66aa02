import torch
from torch import Tensor
from torch.nn import functional as F

from heads.ops.alignment import procrustes_map, ridge_map


def unit(n: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 6, generator=rng, dtype=torch.float64), dim=-1)


def test_ridge_solves_its_normal_equations() -> None:
    x, target = unit(10), unit(10, seed=1)
    w = ridge_map(x, target, 0.7)
    slope = torch.zeros(6, 6, dtype=torch.float64)
    for row, wanted in zip(x, target, strict=True):
        slope += torch.outer(row, row + row @ w - wanted)
    slope += 0.7 * w
    assert float(slope.abs().max()) < 1e-10
    assert float(ridge_map(x, target, 1e9).abs().max()) < 1e-6


def test_procrustes_is_the_best_rotation() -> None:
    x = unit(27)
    hidden = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double())
    turn = procrustes_map(x, x @ hidden.Q) + torch.eye(6)
    assert torch.allclose(turn @ turn.T, torch.eye(6).double(), atol=1e-10)
    assert torch.allclose(turn, hidden.Q, atol=1e-2)


def test_procrustes_leaves_unseen_directions() -> None:
    x = torch.eye(6).double()[:2]
    w = procrustes_map(x, x.flip(0))
    assert torch.allclose(w[2:], torch.zeros(4, 6).double(), atol=1e-9)
    assert torch.allclose(x + x @ w, x.flip(0), atol=1e-2)
