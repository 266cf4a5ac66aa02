"""Batches: deterministic, complete, of fixed shape, and never aware of a grid."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.contract.rows import Kind, LazyRows, Rows
from heads.contract.stages import Sampler
from heads.training.batches import as_batch
from heads.training.samplers import Drawer, balanced, full, pool, shuffled, view_pool


def rows(n: int, c: int = 3, views: int = 0, crops: int = 0, labelled: bool = True) -> Rows:
    x = torch.arange(n).float()[:, None].repeat(1, 2)
    kinds: dict[Kind, Tensor | LazyRows] = {}
    if views:
        steps = torch.arange(1, views + 1)[None, :, None]
        kinds[Kind("views", "rrc50")] = x[:, None] + 0.01 * steps
    if crops:
        kinds[Kind("crops")] = x[:, None] + 0.5 * torch.arange(crops)[None, :, None]
    labels = torch.arange(n) % c if labelled else None
    return Rows(x=x, norms=torch.ones(n), labels=labels, kinds=kinds)


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_an_epoch_visits_every_row_once(n: int, size: int, seed: int) -> None:
    drawer = Drawer(shuffled(size), rows(n), seed, 0)
    draw = drawer.draw(3)
    assert draw.index.shape == (drawer.per_epoch, drawer.batch) == draw.weight.shape
    visited = draw.index[draw.weight > 0]
    assert sorted(visited.tolist()) == list(range(n))


@pytest.mark.parametrize(
    "sampler", [full(), shuffled(4), balanced(2, 2, 2), view_pool(4), pool(5)], ids=lambda s: s.kind
)
def test_draws_follow_from_seed_stage_and_epoch_alone(sampler: Sampler) -> None:
    some = rows(13, views=3)

    def draw(seed: int, stage: int, epoch: int) -> Tensor:
        drawn = Drawer(sampler, some, seed, stage).draw(epoch)
        return torch.stack([drawn.index, drawn.view])

    again = Drawer(sampler, some, 5, 1)
    again.draw(0)  # earlier draws must not matter
    drawn = again.draw(2)
    assert torch.equal(torch.stack([drawn.index, drawn.view]), draw(5, 1, 2))
    others = [draw(6, 1, 2), draw(5, 0, 2), draw(5, 1, 3)]
    assert not any(torch.equal(draw(5, 1, 2), other) for other in others)


def test_a_view_is_drawn_and_gathered() -> None:
    drawer = Drawer(full(), rows(6, views=4), 0, 0)
    draw = drawer.draw(0)
    assert draw.view.min() >= 0
    assert draw.view.max() <= 3
    x = drawer.gather(draw, 0, None)[0]["x"]
    torch.testing.assert_close(x[:, 0], draw.index[0] + 0.01 * (draw.view[0] + 1))


def test_without_augmentation_the_clean_image_comes() -> None:
    drawer = Drawer(shuffled(6, augment=False), rows(6, views=4), 0, 0)
    draw = drawer.draw(0)
    assert set(draw.view.flatten().tolist()) == {-1}
    assert torch.equal(drawer.gather(draw, 0, None)[0]["x"][:, 0], draw.index[0].float())


def test_balanced_batches_hold_as_many_of_every_class() -> None:
    drawer = Drawer(balanced(each=2, views=3), rows(12, c=3, views=5), 1, 0)
    assert (drawer.batch, drawer.per_epoch) == (3 * 2 * 3, 2)
    draw = drawer.draw(0)
    for step in range(2):
        batch, _, _ = drawer.gather(draw, step, None)
        assert torch.bincount(batch["labels"]).tolist() == [6, 6, 6]
        pairs = list(zip(batch["index"].tolist(), batch["view"].tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
    assert set(draw.index.flatten().tolist()) == set(range(12))


def test_balanced_pads_small_classes_with_weight_zero() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    some = Rows(x=torch.eye(4), norms=torch.ones(4), labels=labels)
    draw = Drawer(balanced(), some, 0, 0).draw(0)
    counted = labels[draw.index[0][draw.weight[0] > 0]]
    assert torch.bincount(counted).tolist() == [3, 1]


def test_balanced_takes_the_clean_image_where_views_lack() -> None:
    draw = Drawer(balanced(views=2), rows(3, views=1), 0, 0).draw(0)
    assert sorted(draw.view[0].tolist()) == [-1, -1, -1, 0, 0, 0]


def test_balanced_takes_an_image_without_views_once() -> None:
    drawer = Drawer(balanced(views=2), rows(6), 0, 0)
    draw = drawer.draw(0)
    assert drawer.batch == 6
    assert sorted(draw.index[0].tolist()) == list(range(6))
    assert set(draw.view[0].tolist()) == {-1}


def test_blocks_of_classes_cover_all_classes() -> None:
    drawer = Drawer(balanced(classes=2, each=1), rows(5, c=5), 0, 0)
    assert drawer.per_epoch == 3
    assert set(drawer.draw(0).index.flatten().tolist()) == set(range(5))


def test_view_pool_is_as_long_as_without_views() -> None:
    drawer = Drawer(view_pool(4), rows(8, views=10), 0, 0)
    draw = drawer.draw(0)
    assert draw.index.shape == (2, 4)
    pairs = set(zip(draw.index.flatten().tolist(), draw.view.flatten().tolist(), strict=True))
    assert len(pairs) == 8


@pytest.mark.parametrize(("size", "steps"), [(4, 2), (8, 1), (256, 1), (1, 10)])
def test_only_full_batches(size: int, steps: int) -> None:
    drawer = Drawer(shuffled(size, drop_last=True), rows(10), 0, 0)
    draw = drawer.draw(1)
    assert draw.index.shape == (steps, min(size, 10))
    assert bool((draw.weight == 1).all())
    assert len(set(draw.index.flatten().tolist())) == steps * min(size, 10)


@pytest.mark.parametrize(
    ("n", "size", "share", "taken"), [(10, 99, 0.75, 7), (10, 4, 0.75, 4), (1, 9, 0.5, 1)]
)
def test_a_share_of_the_rows(n: int, size: int, share: float, taken: int) -> None:
    drawer = Drawer(shuffled(size, drop_last=True, share=share), rows(n), 0, 0)
    steps = [drawer.draw(epoch).index for epoch in range(12)]
    assert {step.shape for step in steps} == {(n // taken, taken)}
    drawn = {tuple(sorted(row)) for step in steps for row in step.tolist()}
    assert all(len(set(row)) == taken for row in drawn)
    assert len(drawn) > 6 or n == 1


def test_a_batch_of_the_view_pool_may_be_larger_than_the_support() -> None:
    drawer = Drawer(view_pool(24, drop_last=True), rows(10, views=3), 0, 0)
    draw = drawer.draw(0)
    assert draw.index.shape == (1, 24)
    pairs = set(zip(draw.index.flatten().tolist(), draw.view.flatten().tolist(), strict=True))
    assert len(pairs) == 24
    assert Drawer(view_pool(24, drop_last=True), rows(10), 0, 0).draw(0).index.shape == (1, 10)


def test_pool_batches_have_no_labels_and_take_some_crops() -> None:
    drawer = Drawer(pool(4, take=((Kind("crops"), 3),)), rows(9, crops=6, labelled=False), 0, 0)
    draw = drawer.draw(0)
    batch = as_batch(drawer.gather(draw, 0, None), torch.tensor(0), torch.tensor(0))
    assert set(batch.y.tolist()) == {-1}
    crops = batch.get("crops")
    assert crops is not None
    assert crops.shape == (4, 3, 2)
    expected = batch.index[:, None] + 0.5 * draw.take[Kind("crops")][0]
    torch.testing.assert_close(crops[..., 0], expected)
    assert all(len(set(row)) == 3 for row in draw.take[Kind("crops")][0].tolist())


def test_rows_of_a_fixed_tensor_are_dealt_out_beside() -> None:
    fixed = {"texts": torch.zeros(7, 2)}
    drawer = Drawer(shuffled(2, beside=(("texts", 3),)), rows(9), 0, 0, fixed)
    dealt = drawer.draw(0).beside["texts"]
    assert dealt.shape == (5, 3)
    for first in (0, 2):  # two steps share one order of the seven
        assert len(set(dealt[first : first + 2].flatten().tolist())) == 6
    batch = as_batch(drawer.gather(drawer.draw(0), 4, None), torch.tensor(4), torch.tensor(0))
    assert torch.equal(batch.beside["texts"], dealt[4])
    left, _, beside = drawer.source.gather(drawer.draw(0), 4, None, rows=1)
    assert (len(left["x"]), len(beside["texts"])) == (1, 3)
    few = Drawer(shuffled(2, beside=(("texts", 30),)), rows(9), 0, 0, fixed)
    assert few.draw(1).beside["texts"].sort(-1).values.tolist() == [list(range(7))] * 5


def test_a_row_comes_with_the_length_it_had() -> None:
    some = replace(rows(6, views=3), norms=10 + torch.arange(6.0))
    plain = Drawer(shuffled(4, augment=False), some, 0, 0)
    rows_of, _, _ = plain.gather(plain.draw(0), 0, None)
    assert torch.equal(rows_of["norms"], 10 + rows_of["index"].float())
    some = replace(some, lengths={Kind("views", "rrc50"): torch.arange(18.0).reshape(6, 3)})
    viewed = Drawer(shuffled(4), some, 0, 0)
    rows_of, _, _ = viewed.gather(viewed.draw(0), 0, None)
    assert torch.equal(rows_of["norms"], (3 * rows_of["index"] + rows_of["view"]).float())
    mixed = Drawer(balanced(views=4), some, 0, 0)  # three views and the clean image
    rows_of, _, _ = mixed.gather(mixed.draw(0), 0, None)
    clean = rows_of["view"] < 0
    assert torch.equal(rows_of["norms"][clean], 10 + rows_of["index"][clean].float())


def test_class_weights_and_padding_multiply() -> None:
    drawer = Drawer(shuffled(4), rows(5), 0, 0)
    draw = drawer.draw(0)
    weights = torch.tensor([1.0, 2, 3, 4, 5])
    last, _, _ = drawer.gather(draw, 1, weights)
    assert last["weights"].tolist() == [float(draw.index[1, 0]) + 1, 0, 0, 0]


def test_numbering_the_classes_anew_draws_the_same_rows() -> None:
    some = rows(12, c=3, views=4)
    assert some.labels is not None
    turned = replace(some, labels=torch.tensor([2, 0, 1])[some.labels])
    for epoch in range(3):
        one, other = (Drawer(balanced(2, 2, 2), r, 1, 0).draw(epoch) for r in (some, turned))
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.view, other.view)
