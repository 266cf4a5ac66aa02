import numpy as np
import pytest
import torch

from featcache.errors import UsageError
from heads.ops import ape_criterion as channels


def naive_similarity(keys: np.ndarray, labels: list[int], anchors: np.ndarray) -> np.ndarray:
    """Sum the products of every ordered pair of rows of two classes, as the released loops do."""
    rows = [(label, key) for label, key in zip(labels, keys, strict=True)]
    rows += list(enumerate(anchors))
    total, count = np.zeros(keys.shape[1]), 0
    for one, x in rows:
        for other, y in rows:
            if one != other:
                total += x * y
                count += 1
    return total / count


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [0, 0, 0, 2, 1]])
def test_similarity_equals_loops_over_all_pairs(labels: list[int]) -> None:
    rng = torch.Generator().manual_seed(0)
    keys = torch.randn(len(labels), 5, generator=rng, dtype=torch.float64)
    anchors = torch.randn(3, 5, generator=rng, dtype=torch.float64)
    got = channels.similarity(keys, torch.tensor(labels), anchors)
    expected = naive_similarity(keys.numpy(), labels, anchors.numpy())
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_channels_of_little_similarity_and_much_variance_are_best() -> None:
    anchors = torch.tensor([[1.0, 0.1, 0.5], [-1.0, 0.1, 0.4]])
    similar = torch.tensor([0.0, 0.0, 9.0], dtype=torch.float64)
    assert channels.best_channels(similar, anchors, 0.5, 2).tolist() == [0, 1]
    assert channels.best_channels(similar, anchors, 1.0, 2).tolist() == [0, 1]
    assert channels.best_channels(similar, anchors, 0.0, 2).tolist() == [0, 2]  # variance alone


@pytest.mark.parametrize(("d", "kept"), [(1024, 800), (512, 400), (768, 600), (1, 1)])
def test_the_share_is_the_released_one(d: int, kept: int) -> None:
    assert channels.kept_channels(0, d, method="ape") == kept
    assert channels.kept_channels(1, d, method="ape") == 1


def test_more_channels_than_there_are() -> None:
    with pytest.raises(UsageError, match=r"ape's setting channels must be at most 8.*got 9"):
        channels.kept_channels(9, 8, method="ape")
