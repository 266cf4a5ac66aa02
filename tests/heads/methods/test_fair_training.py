"""FAIR's training on a toy of two clusters, and what it says of a collapse."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.types import TextBank
from heads.contract.rows import Batch, Kind, Rows, TaskView
from heads.methods import fair
from heads.training.trainer import train
from tests.heads.methods.test_fair import trained
from tests.tiers import quick

D = 6
WEIGHTINGS = ("agreement", "margin", "confusion", "none")


def two_clusters(n: int = 300) -> tuple[TaskView, Rows]:
    """Build two clusters and texts that split them badly, alike in all but their direction."""
    rng = torch.Generator().manual_seed(3)
    y = torch.arange(2 * n) % 2
    means = torch.zeros(2, D)
    means[0, 0], means[1, 1] = 1.0, 1.0

    def near(*shape: int) -> Tensor:
        middle = means[y].reshape(2 * n, *(1 for _ in shape), D)
        noise = 0.35 * torch.randn(2 * n, *shape, D, generator=rng)
        return F.normalize(middle + noise, dim=-1)

    x = near()
    told = torch.tensor([[1.0, 0.3, 0.6, 0, 0, 0], [0.6, 0.7, -0.6, 0, 0, 0]])
    bank = TextBank(
        classes=("a", "b"),
        names=told,
        templates=("a {}.",),
        template_rows=told[:, None],
        descriptions=("a", "b"),
        description_rows=told,
        owner=torch.arange(2),
        logit_scale=20.0,
    )
    half = slice(0, n)
    kinds = {Kind("crops", "fair"): near(8)[half], Kind("views", "strong"): near(4)[half]}
    pool = Rows(x=x[half], norms=torch.ones(n), labels=None, kinds=kinds)
    none = x[:0]
    view = TaskView(
        support=Rows(x=none, norms=none[:, 0], labels=y[:0]),
        pool=pool,
        text=cast(Any, bank),
        classes=("a", "b"),
        seed=0,
    )
    return view, Rows(x=x[n:], norms=torch.ones(n), labels=y[n:])


@pytest.mark.parametrize("weighting", quick(WEIGHTINGS, 1))
def test_training_beats_its_start_on_two_clusters(weighting: Any) -> None:
    view, query = two_clusters()
    scores = []
    for epochs in (0, 15):
        config = trained(weighting=weighting, epochs=epochs)
        (run,) = train(fair.METHOD, config, [view], [fair.Hyper(lr=0.02)])
        scores.append(run.head.accuracy(query))
    assert scores[0] < 0.9
    assert scores[1] > scores[0] + 0.03
    assert set(run.watch) == {"balance", "moved", "trust"}
    assert len(run.watch["balance"]) == 15


def test_loss_falls_on_two_clusters() -> None:
    view, _ = two_clusters()
    config, hyper = trained(weighting="none"), fair.Hyper(lr=0.02)
    assert view.pool is not None
    values = []
    for epochs in (0, 15):
        (run,) = train(fair.METHOD, trained(weighting="none", epochs=epochs), [view], [hyper])
        batch = Batch(
            index=torch.arange(300),
            view=torch.full((300,), -1),
            labels=torch.full((300,), -1),
            weights=torch.ones(300),
            x=view.pool.x,
            norms=view.pool.norms,
            step=torch.tensor(0),
            epoch=torch.tensor(0),
            kinds=view.pool.kinds,
        )
        params, fixed = run.head.params, run.head.fixed
        state = fair.start(params, fixed, config, hyper)
        values.append(float(fair.loss(params, fixed, state, batch, config, hyper)[0]))
    assert values[1] < values[0]


@pytest.mark.parametrize(
    ("series", "told"),
    [
        ([0.9, 0.8, 0.85], False),
        ([0.5, 0.9, 0.6], True),
        ([0.1, 0.1, 0.1], True),
        ([0.3, 0.3, 0.3], False),
        ([], False),
    ],
)
def test_a_collapse_is_told(series: list[float], told: bool) -> None:
    watched: list[Mapping[str, Sequence[float]]] = [{"balance": series}]
    assert bool(fair.notes(watched)) == told


def test_balance_is_the_share_of_classes_guessed() -> None:
    counts = torch.tensor([5.0, 5.0, 0.0, 0.0])
    sums = {"moved_rows": torch.tensor(3.0), "trust_sum": torch.tensor(8.0)}
    after = fair.watch({"guessed": counts, **sums})
    (stage,) = fair.stages(trained())
    got = {name: float(after[name]) for name in stage.watch}
    assert got == pytest.approx({"balance": 0.5, "moved": 0.3, "trust": 0.8})
