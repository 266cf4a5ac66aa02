"""FAIR whose teacher reads the pool images closest to each: against loops, and what it leaves."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import UsageError
from heads.contract.rows import Rows
from heads.methods import fair
from heads.ops.neighbours import mean_of_neighbours
from heads.training.trainer import train
from tests.heads.methods.test_fair import (
    D,
    begin,
    draw,
    features,
    make,
    naive_aligned,
    naive_loss,
    normal,
    trained,
    unit,
)
from tests.heads.methods.test_fair_training import two_clusters

POOL = 9


def with_pool(seed: int = 0) -> tuple[Any, Tensor]:
    x = unit(torch.Generator().manual_seed(50 + seed), POOL, D)
    return make(seed, x=x, norms=torch.ones(POOL, dtype=torch.float64)), x


def naive_near(x: list[list[float]], i: int, count: int) -> list[float]:
    def cosine(j: int) -> float:
        return sum(a * b for a, b in zip(x[i], x[j], strict=True))

    others = sorted((j for j in range(len(x)) if j != i), key=lambda j: -cosine(j))[:count]
    return [sum(x[j][d] for j in others) / len(others) for d in range(D)]


@pytest.mark.parametrize("count", [1, 3, 8, 50])
def test_the_mean_of_the_neighbours_equals_naive_loops(count: int) -> None:
    task, x = with_pool()
    config = trained(teacher="neighbours", neighbours=count)
    _, fixed = fair.prepare(task, config, fair.Hyper())
    expected = [naive_near(x.tolist(), i, count) for i in range(POOL)]
    torch.testing.assert_close(fixed["near"], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("weighting", ["agreement", "margin", "none"])
@pytest.mark.parametrize("lean", [0.3, 1.0])
def test_loss_equals_naive_loops(
    weighting: Any, lean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, x = with_pool()
    config = trained(teacher="neighbours", neighbours=3, weighting=weighting, keep=0.4)
    hyper = fair.Hyper(lam=0.7, mu=0.3, tau=0.2, gamma=0.2, lean=lean)
    params, fixed, state = begin(task, config, hyper)
    batch = replace(draw(0), index=torch.tensor([7, 2, 0, 8, 8]))  # the last is padding
    got, state = fair.loss(params, fixed, state, batch, config, hyper)

    kept = iter(batch.index.tolist())

    def leaning(*given: Any) -> list[float]:
        own, near = naive_aligned(*given), naive_near(x.tolist(), next(kept), 3)
        return normal([(1 - lean) * a + lean * b for a, b in zip(own, near, strict=True)])

    monkeypatch.setattr("tests.heads.methods.test_fair.naive_aligned", leaning)
    expected, _, guesses = naive_loss(task, params, batch, config, hyper, None)
    assert float(got) == pytest.approx(expected, abs=1e-6)
    assert state["guessed"].tolist() == [guesses.count(c) for c in range(4)]


def test_without_leaning_the_teacher_is_the_image_alone() -> None:
    view, query = two_clusters(60)
    settings = (
        (trained(epochs=3, teacher="weighted"), fair.Hyper()),
        (trained(epochs=3, teacher="neighbours"), fair.Hyper(lean=0.0)),
        (trained(epochs=3, teacher="neighbours"), fair.Hyper(lean=0.9)),
    )
    heads = [
        next(iter(train(fair.METHOD, config, [view], [hyper]))).head for config, hyper in settings
    ]
    image, still, leaning = (head.logits(query) for head in heads)
    torch.testing.assert_close(still, image, rtol=0, atol=1e-4)
    assert float((leaning - image).abs().max()) > 1e-2


def test_neighbours_correct_pseudo_labels_of_two_clusters() -> None:
    """Noise of single images cancels: more of the guesses are right at the same anchors."""
    view, _ = two_clusters(300)
    pool = view.pool
    assert pool is not None
    truth = torch.arange(300) % 2
    crops = features(pool, "crops", "fair")[:, :1]
    anchors = torch.nn.functional.normalize(torch.eye(2, D) + 0.2, dim=-1)
    near = mean_of_neighbours(pool.x, 5)
    right = [
        float(((v @ anchors.mT).argmax(-1) == truth).float().mean())
        for v in (crops[:, 0], 0.5 * crops[:, 0] + 0.5 * near)
    ]
    assert right[1] > right[0] + 0.02


def test_a_kept_head_answers_without_the_neighbours() -> None:
    view, query = two_clusters(40)
    config = trained(teacher="neighbours", epochs=1)
    (run,) = train(fair.METHOD, config, [view], [fair.Hyper()])
    fixed = {n: t for n, t in run.head.fixed.items() if n not in fair.METHOD.training_only}
    assert "near" not in fixed
    assert torch.equal(replace(run.head, fixed=fixed).logits(query), run.head.logits(query))


def test_a_pool_of_one_image_has_no_neighbours() -> None:
    view, _ = two_clusters(4)
    assert view.pool is not None
    alone = replace(view, pool=Rows(x=view.pool.x[:1], norms=view.pool.norms[:1]))
    with pytest.raises(UsageError, match="teacher='confidence'"):
        fair.prepare(alone, trained(teacher="neighbours"), fair.Hyper())
