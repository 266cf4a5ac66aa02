"""Rows of several tasks collected in one go are those that each task collects by itself."""

from typing import Any

import pytest
import torch

from heads.contract.rows import Kind, Rows
from heads.contract.stages import Sampler
from heads.training import batches
from heads.training.samplers import Batches, Drawer, balanced, pool, shuffled


def rows(seed: int, n: int = 7) -> Rows:
    rng = torch.Generator().manual_seed(seed)
    return Rows(
        x=torch.rand(n, 2, generator=rng),
        norms=torch.rand(n, generator=rng),
        labels=torch.arange(n) % 3,
        kinds={
            Kind("views", "rrc50"): torch.rand(n, 4, 2, generator=rng),
            Kind("crops"): torch.rand(n, 5, 2, generator=rng),
        },
        lengths={Kind("views", "rrc50"): torch.rand(n, 4, generator=rng)},
    )


@pytest.mark.parametrize("room", [0, batches.JOIN_BYTES])
@pytest.mark.parametrize(
    "sampler",
    [shuffled(3, beside=(("texts", 2),)), balanced(2, 2, 5), pool(4, take=((Kind("crops"), 3),))],
    ids=lambda s: s.kind,
)
def test_tasks_side_by_side_collect_what_each_does(
    sampler: Sampler, room: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(batches, "JOIN_BYTES", room)
    fixed = {"texts": torch.zeros(6, 2)}
    drawers = [Drawer(sampler, rows(s), s, 0, fixed) for s in range(3)]
    weights = [torch.rand(7) for _ in drawers]
    together = Batches(drawers, weights, fixed_shape=True)
    for epoch in (0, 1, drawers[0].epochs, 1):
        for at in range(drawers[0].per_epoch):
            found = together.rows(epoch, at)
            for s, drawer in enumerate(drawers):
                alone = drawer.gather(drawer.draw(epoch), at, weights[s])
                parts: list[Any] = list(zip(found, alone, strict=True))
                for mine, theirs in parts:
                    assert mine.keys() == theirs.keys()
                    for name, tensor in theirs.items():
                        assert torch.equal(mine[name][s], tensor), name


def test_padding_is_left_out_of_a_run_alone_but_not_of_a_balanced_batch() -> None:
    for sampler, sizes in ((shuffled(3), [3, 3, 1]), (balanced(), [9])):
        alone = Batches([Drawer(sampler, rows(0), 0, 0)], [None], fixed_shape=False)
        assert [len(alone.rows(2, at)[0]["x"]) for at in range(len(sizes))] == sizes
