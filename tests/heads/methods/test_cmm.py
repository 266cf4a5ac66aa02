import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.contract.rows import Rows, TaskView
from heads.methods import cmm, lfa
from heads.training.trainer import train

HYPER = cmm.Hyper()


def logits(
    task: TaskView, x: Tensor, params: dict[str, Tensor], config: cmm.Config, hyper: cmm.Hyper
) -> Tensor:
    _, fixed = cmm.prepare(task, config, hyper)
    return cmm.combine(cmm.terms(params, fixed, Rows.of(x), config, hyper), fixed, config, hyper)


def moved(task: TaskView, config: cmm.Config, seed: int = 1) -> dict[str, Tensor]:
    """Return parameters away from their start."""
    params, _ = cmm.prepare(task, config, HYPER)
    rng = torch.Generator().manual_seed(seed)
    return {
        k: v + 0.3 * torch.randn(v.shape, generator=rng, dtype=v.dtype) for k, v in params.items()
    }


def naive_logits(
    task: TaskView, x: Tensor, params: dict[str, Tensor], alpha: float, fusion: bool
) -> tuple[list[list[float]], list[list[float]]]:
    """Equations (1) and (2) a scalar at a time: (logits, cosines of the mapped rows)."""
    assert task.text is not None
    anchors, d = task.text.anchors().double(), x.shape[1]
    out, cosines = [], []
    for q in x:
        u = [
            float(q[j]) + sum(float(q[i] * params["map"][i, j]) for i in range(d)) for j in range(d)
        ]
        length = math.sqrt(sum(v * v for v in u))
        row, cosine = [], []
        for c in range(task.c):
            t = params["text"][c]
            cosine.append(sum(u[j] * float(t[j]) for j in range(d)) / length / float(t.norm()))
            zero_shot = 20.0 * float(q @ anchors[c]) - 3.0
            row.append((zero_shot if fusion else 0.0) + alpha * 20.0 * cosine[-1])
        out.append(row)
        cosines.append(cosine)
    return out, cosines


def naive_discriminant(task: TaskView, x: Tensor) -> Tensor:
    """Return r g(x) of (5), with an explicit inverse."""
    assert task.support.labels is not None
    assert task.text is not None
    views, labels = task.support.get("views"), task.support.labels.tolist()
    pairs = [
        (row, label)
        for i, label in enumerate(labels)
        for row in (task.support.x[[i]] if views is None else views[i])
    ]
    d, c = x.shape[1], task.c
    means = [torch.stack([r for r, y in pairs if y == k]).mean(0) for k in range(c)]
    scatter = torch.zeros(d, d, dtype=torch.float64)
    for row, label in pairs:
        gap = row - means[label]
        scatter += torch.outer(gap, gap)
    trace = sum(float(scatter[i, i]) for i in range(d)) / (len(pairs) - 1)
    precision = d * torch.linalg.inv(scatter + trace * torch.eye(d, dtype=torch.float64))

    def g(row: Tensor) -> list[float]:
        return [
            float(row @ precision @ mu) - math.log(c) - float(mu @ precision @ mu) / 2
            for mu in means
        ]

    def spread(rows: list[list[float]]) -> float:
        squares = [(v - sum(row) / c) ** 2 for row in rows for v in row]
        return math.sqrt(sum(squares) / len(squares))

    anchors = task.text.anchors().double()
    text = [[20.0 * float(row @ t) for t in anchors] for row in task.support.x]
    ratio = spread(text) / spread([g(row) for row in task.support.x])
    return ratio * torch.tensor([g(row) for row in x]).double()


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("discriminant", [True, False])
@pytest.mark.parametrize("views", [0, 3])
def test_logits_equal_naive_loops(toy: Any, fusion: bool, discriminant: bool, views: int) -> None:
    task, x = toy(bias=-3.0, views=views)
    config = cmm.Config(fusion=fusion, discriminant=discriminant)
    hyper = cmm.Hyper(alpha=0.7, weight=0.4)
    params = moved(task, config)
    rows, _ = naive_logits(task, x, params, 0.7, fusion)
    expected = torch.tensor(rows).double()
    if discriminant:
        expected += 0.4 * (1.7 if fusion else 0.7) * naive_discriminant(task, x)
    got = logits(task, x, params, config, hyper)
    assert torch.allclose(got, expected, atol=1e-5)


def test_one_row_a_class_has_no_discriminant(toy: Any) -> None:
    task, x = toy(counts=(1, 1, 1))
    params = moved(task, cmm.Config())
    without = logits(task, x, params, cmm.Config(discriminant=False), HYPER)
    assert torch.equal(logits(task, x, params, cmm.Config(), HYPER), without)


def test_the_discriminant_is_not_trained_on(toy: Any) -> None:
    task, _ = toy(views=3)
    (one,) = train(cmm.METHOD, cmm.Config(steps=9), [task], [HYPER])
    (other,) = train(cmm.METHOD, cmm.Config(steps=9, discriminant=False), [task], [HYPER])
    for name in ("map", "text"):
        assert torch.equal(one.head.params[name], other.head.params[name])
    assert bool(one.head.params["map"].any())


@pytest.mark.parametrize("triplet", [True, False])
def test_loss_equals_naive_loops(toy: Any, whole_batch: Any, triplet: bool) -> None:
    task, _ = toy(bias=-3.0)
    config = cmm.Config(triplet=triplet)
    hyper = cmm.Hyper(alpha=0.7, lam=2.5, margin=0.4, l2=0.3, l2_text=0.2)
    params = moved(task, config)
    batch = whole_batch(task)
    _, fixed = cmm.prepare(task, config, hyper)
    got, state = cmm.loss(params, fixed, {}, batch, config, hyper)
    rows, cosines = naive_logits(task, batch.x, params, 0.7, True)
    entropies, hinges = [], []
    kept = [i for i, w in enumerate(batch.weights.tolist()) if w > 0]
    for i in kept:
        y = int(batch.y[i])
        entropies.append(math.log(sum(map(math.exp, rows[i]))) - rows[i][y])
        wrong = max(v for c, v in enumerate(cosines[i]) if c != y)
        hinges.append(max(0.0, (1 - cosines[i][y]) - (1 - wrong) + 0.4))
    assert any(hinges)
    assert not all(hinges)
    expected = sum(entropies) / len(kept) + (2.5 * sum(hinges) / len(kept) if triplet else 0.0)
    assert task.text is not None
    anchors = task.text.anchors().double()
    shots = len(batch.x) / task.c
    expected += 0.3 * sum(float(v) ** 2 for v in params["map"].flatten()) / shots
    expected += 0.2 * sum(float(v) ** 2 for v in (params["text"] - anchors).flatten()) / shots
    assert float(got) == pytest.approx(expected, abs=1e-5)
    assert state == {}


def test_start_is_a_multiple_of_zero_shot(toy: Any) -> None:
    task, x = toy()
    config, hyper = cmm.Config(), cmm.Hyper(alpha=1.5, weight=0.0)
    params, _ = cmm.prepare(task, config, hyper)
    zero_shot = 20.0 * x @ task.text.anchors().double().T
    assert torch.allclose(logits(task, x, params, config, hyper), 2.5 * zero_shot, atol=1e-5)


def test_alpha_zero_is_zero_shot(toy: Any) -> None:
    task, x = toy()
    params = moved(task, cmm.Config())
    zero_shot = 20.0 * x @ task.text.anchors().double().T
    got = logits(task, x, params, cmm.Config(), cmm.Hyper(alpha=0.0, weight=0.0))
    assert torch.allclose(got, zero_shot, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), angle=st.floats(0.1, 3.0))
def test_length_of_the_texts_and_rotation_of_the_space_change_nothing(
    toy: Any, seed: int, angle: float
) -> None:
    task, x = toy(seed)
    config = cmm.Config(fusion=False, discriminant=False)
    params = moved(task, config, seed)
    base = logits(task, x, params, config, HYPER)
    longer = {"map": params["map"], "text": angle * params["text"]}
    assert torch.allclose(logits(task, x, longer, config, HYPER), base, atol=1e-9)
    turn = torch.eye(6, dtype=torch.float64)
    turn[0, 0] = turn[1, 1] = math.cos(angle)
    turn[0, 1], turn[1, 0] = math.sin(angle), -math.sin(angle)
    turned = {"map": turn.T @ params["map"] @ turn, "text": params["text"] @ turn}
    assert torch.allclose(logits(task, x @ turn, turned, config, HYPER), base, atol=1e-9)


@pytest.mark.parametrize(
    ("train_map", "train_text", "trains"),
    [
        (True, True, {"map", "text"}),
        (True, False, {"map"}),
        (False, True, {"text"}),
        (False, False, None),
    ],
)
def test_switches_choose_what_is_trained(
    train_map: bool, train_text: bool, trains: set[str] | None
) -> None:
    stages = cmm.stages(cmm.Config(train_map=train_map, train_text=train_text))
    assert [set(s.trains or ()) for s in stages] == ([] if trains is None else [trains])


@pytest.mark.parametrize("init", ["ridge", "procrustes"])
def test_closed_form_starts_bring_shots_to_their_texts(toy: Any, init: Any) -> None:
    task, _ = toy()
    params, fixed = cmm.prepare(task, cmm.Config(init=init), HYPER)
    x, own = task.support.x, fixed["anchors"][task.support.labels]

    def closeness(rows: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(rows, own).mean())

    assert closeness(x + x @ params["map"]) > closeness(x) + 0.1
    assert torch.equal(params["map"], fixed["start"])


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_the_start_from_a_rotation_is_that_of_lfa(toy: Any, beta: float) -> None:
    """Without training, and in the form of lfa; the rotation itself is regularised here by 1e-3."""
    task, x = toy(counts=(3,) * 8, n=20)
    config = cmm.Config(init="procrustes", fusion=False, discriminant=False, steps=0)
    hyper = cmm.Hyper(beta=beta)
    params, fixed = cmm.prepare(task, config, hyper)
    got = cmm.combine(cmm.terms(params, fixed, Rows.of(x), config, hyper), fixed, config, hyper)
    other, own = lfa.prepare(task, lfa.Config(steps=0, beta=beta), lfa.Hyper())
    expected = lfa.terms(other, own, Rows.of(x), lfa.Config(steps=0), lfa.Hyper())["logits"]
    torch.testing.assert_close(got, expected, rtol=0, atol=0.02)
    assert (got - 20 * x @ fixed["anchors"].mT).abs().max() > 1 or beta == 1
