"""FAIR's student in closed form and its teachers: against loops, and what it leaves."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.contract.rows import Kind, LazyRows, Rows, TaskView
from heads.methods import fair
from heads.ops.discriminant import discriminant, log_posterior
from heads.training.trainer import train
from tests.heads.methods.test_fair import (
    BIAS,
    SCALE,
    C,
    D,
    Vectors,
    dot,
    features,
    make,
    naive_aligned,
    naive_fixed,
    naive_guess,
    normal,
    softmax,
    unit,
)
from tests.heads.methods.test_fair_training import two_clusters

POOL, STRONG = 23, 3


def with_pool(seed: int = 0, *, weak: bool = True) -> TaskView:
    rng = torch.Generator().manual_seed(80 + seed)
    kinds: dict[Kind, Tensor | LazyRows] = {
        Kind("crops", "fair"): unit(rng, POOL, 5, D),
        Kind("views", "strong"): unit(rng, POOL, STRONG, D),
    }
    if weak:
        kinds[Kind("views", "weak")] = unit(rng, POOL, 1, D)
    x = unit(rng, POOL, D)
    return make(seed, x=x, norms=torch.ones(POOL, dtype=torch.float64), kinds=kinds)


def starts(task: TaskView) -> Vectors:
    """Return A0, the normalised mean of each class's unit descriptions."""
    bank: Any = task.text
    texts = [normal(t) for t in bank.description_rows.double().tolist()]
    own = [[t for t, o in zip(texts, bank.owner.tolist(), strict=True) if o == c] for c in range(C)]
    return [normal([sum(column) / len(some) for column in zip(*some, strict=True)]) for some in own]


def naive_teach(
    crops: Vectors, g: list[float], anchors: Vectors, config: fair.Config, hyper: fair.Hyper
) -> list[float]:
    """Equation (1) but for neighbours."""
    if config.teacher == "weighted":
        return naive_aligned(crops, g, config.keep, hyper.tau)
    sure = [hyper.sharpness * max(dot(p, a) for a in anchors) for p in crops]
    weight = softmax(sure if config.teacher == "confidence" else [0.0] * len(crops))
    return normal([sum(w * p[j] for w, p in zip(weight, crops, strict=True)) for j in range(D)])


def naive_posterior(
    rows: Vectors, labels: list[int], weights: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """W and b of (5): Gaussian classes with one shrunk covariance, entry by entry."""
    n = sum(weights)

    def mean(some: list[int]) -> list[float]:
        total = sum(weights[i] for i in some)
        return [sum(weights[i] * rows[i][j] for i in some) / total for j in range(D)]

    every = list(range(len(rows)))
    own = [[i for i in every if labels[i] == c] for c in range(C)]
    means = [mean(some or every) for some in own]
    s = np.zeros((D, D))
    for i in every:
        away = [a - b for a, b in zip(rows[i], means[labels[i]], strict=True)]
        for j in range(D):
            for k in range(D):
                s[j, k] += weights[i] * away[j] * away[k] / (n - 1)
    precision = np.linalg.inv(s + np.trace(s) / (n - 1) * np.eye(D))
    w = np.array(means) @ precision
    return w, -math.log(C) - 0.5 * (w * np.array(means)).sum(1)


def naive_student(
    task: TaskView, config: fair.Config, hyper: fair.Hyper
) -> tuple[np.ndarray, np.ndarray]:
    assert task.pool is not None
    pool, anchors = task.pool, starts(task)
    crops, strong = features(pool, "crops", "fair").tolist(), features(pool, "views", "strong")
    weak = pool.get("views", "weak")
    x = pool.x.tolist()
    rows, labels, weights = [], [], []
    for i in range(POOL):
        g = x[i] if weak is None else weak[i, 0].tolist()
        v = naive_teach(crops[i], g, anchors, config, hyper)
        guess, trust = naive_guess(v, anchors, naive_fixed(task), config.weighting, hyper.gamma)
        seen = [x[i], *strong[i].tolist()] if weak is None else [x[i], g, *strong[i].tolist()]
        rows += seen
        labels += [guess] * len(seen)
        weights += [max(trust, 1e-6)] * len(seen)
    return naive_posterior(rows, labels, weights)


@pytest.mark.parametrize("teacher", ["confidence", "mean", "weighted"])
@pytest.mark.parametrize("weighting", ["agreement", "none"])
@pytest.mark.parametrize("weak", [True, False])
def test_the_student_equals_naive_loops(
    teacher: Any, weighting: Any, weak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair, "CHUNK", 7)  # the pool is read in parts
    task = with_pool(weak=weak)
    config = fair.Config(teacher=teacher, weighting=weighting)
    hyper = fair.Hyper(gamma=0.2, tau=0.3, sharpness=9.0)
    params, fixed = fair.prepare(task, config, hyper)
    weight, offset = naive_student(task, config, hyper)
    assert params == {}
    np.testing.assert_allclose(fixed["weight"].numpy(), weight, rtol=1e-5, atol=1e-5)  # float32
    np.testing.assert_allclose(fixed["offset"].numpy(), offset, rtol=1e-5, atol=1e-5)  # texts


@pytest.mark.parametrize("infer", ["global", "las", "average"])
@pytest.mark.parametrize("fuse", [0.0, 0.4])
def test_logits_equal_naive_loops(infer: Any, fuse: float) -> None:
    task = with_pool()
    config, hyper = fair.Config(infer=infer), fair.Hyper(fuse=fuse, sharpness=9.0)
    params, fixed = fair.prepare(task, config, hyper)
    rng = torch.Generator().manual_seed(3)
    x, crops = unit(rng, 4, D), unit(rng, 4, 5, D)
    rows = Rows.of(x, kinds={Kind("crops", "fair"): crops})
    got = fair.combine(fair.terms(params, fixed, rows, config, hyper), fixed, config, hyper)
    weight, offset = naive_student(task, config, hyper)
    anchors = starts(task)
    for row, g, regions in zip(got.tolist(), x.tolist(), crops.tolist(), strict=True):
        v = naive_teach(regions, g, anchors, config, hyper)
        read = {"global": [g], "las": [v], "average": [g, v]}[infer]
        for c, logit in enumerate(row):
            each = [
                dot(weight[c].tolist(), r)
                + float(offset[c])
                + fuse * (SCALE * dot(r, anchors[c]) + BIAS)
                for r in read
            ]
            assert logit == pytest.approx(sum(each) / len(each), abs=1e-4)


def test_the_log_posterior_orders_classes_as_the_discriminant() -> None:
    rng = torch.Generator().manual_seed(1)
    rows, labels = unit(rng, 40, D), torch.arange(40) % C
    weights = torch.rand(40, generator=rng, dtype=torch.float64) + 0.1
    for given in (None, weights):
        (w, b), (m, a) = (f(rows, labels, C, given) for f in (log_posterior, discriminant))
        n = 40 if given is None else float(given.sum())
        ours, theirs = rows @ w.mT + b, rows @ m.mT + a
        expected = (n - 1) / D * (theirs - theirs[:, :1])
        torch.testing.assert_close(ours - ours[:, :1], expected)


def test_rows_without_scatter_leave_the_start() -> None:
    weight, offset = log_posterior(torch.ones(5, D).double(), torch.zeros(5).long(), C)
    assert not weight.any()
    assert not offset.any()


def test_the_student_beats_its_start_on_two_clusters() -> None:
    view, query = two_clusters()
    right = {}
    for name, config in {
        "start": fair.Config(student="anchors", epochs=0),
        "closed form": fair.Config(),
    }.items():
        (run,) = train(fair.METHOD, config, [view], [fair.Hyper()])
        right[name] = run.head.accuracy(query)
        watched = run.watch
    assert right["start"] < 0.9
    assert right["closed form"] > right["start"] + 0.03
    assert set(watched) == {"balance", "trust"}
    assert watched["balance"][0] > 0.9


def test_a_kept_head_answers_without_what_only_training_reads() -> None:
    view, query = two_clusters(40)
    (run,) = train(fair.METHOD, fair.Config(), [view], [fair.Hyper()])
    fixed = {n: t for n, t in run.head.fixed.items() if n not in fair.METHOD.training_only}
    assert set(fixed) == {"weight", "offset", "start", "scale", "bias"}
    assert torch.equal(replace(run.head, fixed=fixed).logits(query), run.head.logits(query))


def test_images_of_which_nothing_is_sure_count_alike() -> None:
    """Two classes with the same texts: every margin is 0, and so would be every weight."""
    view, query = two_clusters(40)
    bank: Any = view.text
    same = bank.description_rows[:1].expand(2, D)
    twins = replace(view, text=replace(bank, description_rows=same))
    (run,) = train(fair.METHOD, fair.Config(weighting="margin"), [twins], [fair.Hyper()])
    assert bool(torch.isfinite(run.head.logits(query)).all())


def test_a_narrow_pool_is_told() -> None:
    assert fair.notes([{"balance": [0.1], "trust": [1.0]}])[0].startswith(
        "Few classes were learned"
    )
    assert fair.notes([{"balance": [0.9], "trust": [1.0]}]) == []
