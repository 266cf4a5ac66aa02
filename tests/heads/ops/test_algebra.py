from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from heads.contract.rows import Kind, Rows
from heads.ops import algebra


def rows(x: torch.Tensor, **kinds: torch.Tensor) -> Rows:
    return Rows.of(x, kinds={Kind(name): t for name, t in kinds.items()})


def test_sum_by_label_equals_the_product_with_one_hot_labels() -> None:
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 2, 2, 4, 0])
    expected = values @ F.one_hot(labels, 5).float()
    assert torch.allclose(algebra.sum_by_label(values, labels, classes=5), expected, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_sum_by_label_under_vmap_and_grad() -> None:
    values, labels = torch.randn(3, 4, 6), torch.randint(5, (3, 6))

    def total(v: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return algebra.sum_by_label(v, y, classes=5).square().sum()

    over_values = torch.func.vmap(torch.func.grad(total), (0, None))(values, labels[0])
    over_both = torch.func.vmap(torch.func.grad(total))(values, labels)
    for i in range(3):
        alone: Any = torch.func.grad(total)
        assert torch.allclose(over_values[i], alone(values[i], labels[0]), atol=1e-5)
        assert torch.allclose(over_both[i], alone(values[i], labels[i]), atol=1e-5)


def test_is_class_marks_no_class_for_the_unlabelled() -> None:
    marked = algebra.is_class(torch.tensor([1, -1]), 3)
    assert marked.tolist() == [[False, True, False], [False] * 3]


def test_mean_of_views_counts_each_view_alike() -> None:
    views = F.normalize(torch.randn(2, 3, 4), dim=-1)
    got = rows(torch.zeros(2, 4), views=views).mean_of_views()
    for i in range(2):
        mean = (views[i, 0] + views[i, 1] + views[i, 2]) / 3
        assert torch.allclose(got[i], mean / mean.norm(), atol=1e-6)


def test_mean_of_views_is_the_clean_row_without_any() -> None:
    x = torch.randn(2, 4)
    assert rows(x).mean_of_views() is x


def test_each_view_is_a_row_with_the_label_and_weight_of_its_image() -> None:
    views = torch.randn(2, 3, 4)
    images = rows(torch.zeros(2, 4), views=views)
    each = replace(
        images, labels=torch.tensor([1, 0]), weights=torch.tensor([0.5, 2.0])
    ).each_view()
    assert torch.equal(each.x, torch.cat([views[0], views[1]]))
    assert each.y.tolist() == [1, 1, 1, 0, 0, 0]
    assert each.row_weights.tolist() == [0.5] * 3 + [2.0] * 3
    assert rows(torch.ones(2, 4)).each_view().labels is None


def test_cross_entropy_leaves_padding_out() -> None:
    logits, y = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, -1])
    weight = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0])
    each = F.cross_entropy(logits, y.clamp(min=0), reduction="none")
    expected = (weight * each).sum() / 4.5
    assert torch.allclose(algebra.cross_entropy(logits, y, weight), expected, atol=1e-6)


def test_cosine_logits_do_not_depend_on_lengths() -> None:
    x, anchors = torch.randn(4, 5), torch.randn(3, 5)
    expected = F.cosine_similarity(x[:, None], anchors[None], dim=-1)
    assert torch.allclose(algebra.cosine_logits(3 * x, anchors), expected, atol=1e-6)


@pytest.mark.parametrize("n", [3, 9])
def test_largest_eigenvalue_from_either_product(n: int) -> None:
    x = torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    expected = float(torch.linalg.svdvals(x)[0]) ** 2
    assert float(algebra.largest_eigenvalue(x)) == pytest.approx(expected, rel=1e-10)


def test_mean_cosine_of_two_different_rows() -> None:
    rows = F.normalize(torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    kept = torch.ones(3, 4)
    kept[0, 2] = 0
    alone = [rows[b, u] for b in range(3) for u in range(4) if kept[b, u]]
    pairs = [float(a @ b) for i, a in enumerate(alone) for b in alone[:i]]
    got, same = algebra.mean_cosine(rows, kept), rows[:1, :1].expand(3, 4, 6)
    assert float(got) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert float(algebra.mean_cosine(same, kept)) == pytest.approx(1.0, abs=1e-5)
