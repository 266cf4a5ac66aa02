"""The map of patches onto texts, against least squares over all of them at once."""

import pytest
import torch
from torch import Tensor

from heads import patch_corpus
from heads.patch_map import mapped, patch_map
from tests.heads.test_patch_corpus import C, D, N, P, V, unit

LABELS = torch.arange(N) % C


def naive(parts: list[Tensor], weights: Tensor, texts: Tensor, ridge: float) -> Tensor:
    """Solve (1) as one stack of rows, each times the root of its weight."""
    x, y, total = [], [], 0.0
    for part in parts:
        for image in range(N):
            for row in part[image].reshape(-1, D):
                root = weights[image].sqrt()
                x.append(root * row)
                y.append(root * texts[LABELS[image]])
                total += float(weights[image])
    eye = (ridge * total / D) ** 0.5 * torch.eye(D).double()
    solved: Tensor = torch.linalg.lstsq(torch.stack([*x, *eye]), torch.stack([*y, *eye])).solution
    return solved


@pytest.mark.parametrize("compared", [1, 4, 10_000])
@pytest.mark.parametrize("ridge", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize("viewed", [False, True])
def test_equals_least_squares(
    compared: int, ridge: float, viewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_corpus, "COMPARED", compared)
    monkeypatch.setattr(patch_corpus, "READ_BYTES", 2 * 4 * P * D)
    parts = [unit(0, N, P, D), *([unit(1, N, V, P, D)] if viewed else [])]
    weights, texts = torch.arange(1, N + 1).double() / N, unit(3, C, D)
    change = patch_map(parts, LABELS, weights, texts, ridge)
    expected = naive(parts, weights, texts, ridge)
    torch.testing.assert_close(torch.eye(D).double() + change, expected, rtol=0, atol=1e-10)


def test_a_strong_penalty_leaves_patches_as_they_are() -> None:
    x, texts = unit(0, N, P, D), unit(3, C, D)
    change = patch_map([x], LABELS, torch.ones(N).double(), texts, 1e9)
    torch.testing.assert_close(mapped(x, change), x, rtol=0, atol=1e-7)
    assert mapped(x, None) is x


def test_a_map_that_is_there_is_found() -> None:
    """Patches are texts turned by a rotation: the map turns all of them back."""
    texts = unit(3, C, D)
    turn = torch.linalg.qr(unit(4, D, D)).Q
    x = (texts[LABELS] @ turn)[:, None]
    change = patch_map([x], LABELS, torch.ones(N).double(), texts, 1e-9)
    torch.testing.assert_close(mapped(x, change)[:, 0], texts[LABELS], rtol=0, atol=1e-5)
