import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from featcache.types import TextBank
from heads.contract.rows import Batch, Kind, LazyRows, Rows, TaskView, Tensors
from heads.methods import fair
from heads.ops.algebra import cosine_logits
from heads.ops.attention import pool_closest
from heads.ops.pseudo_labels import pseudo_labels

C, D, SCALE, BIAS = 4, 6, 20.0, -3.0
WEIGHTINGS = ("agreement", "margin", "confusion", "none")
Vectors = list[list[float]]


def unit(rng: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=rng, dtype=torch.float64), dim=-1)


def make(seed: int = 0, **pool: Any) -> TaskView:
    """Build a task of no support, classes of one to four descriptions."""
    rng = torch.Generator().manual_seed(seed)
    owner = torch.arange(C).repeat_interleave(torch.tensor([1, 2, 3, 4]))
    names = tuple(f"c{i}" for i in range(C))
    bank = TextBank(
        classes=names,
        names=unit(rng, C, D).float() * 7,
        templates=("a {}.", "the {}."),
        template_rows=unit(rng, C, 2, D).float() * 9,
        descriptions=tuple(f"d{i}" for i in range(len(owner))),
        description_rows=unit(rng, len(owner), D).float() * 5,
        owner=owner,
        logit_scale=SCALE,
        logit_bias=BIAS,
    )
    none = torch.zeros(0, D, dtype=torch.float64)
    support = Rows(x=none, norms=none[:, 0], labels=torch.zeros(0, dtype=torch.int64))
    rows = Rows(**pool, labels=None) if pool else None
    return TaskView(support=support, pool=rows, text=cast(Any, bank), classes=names, seed=seed)


def trained(**settings: Any) -> fair.Config:
    """The reconstruction: trained anchors, taught by the crops closest to the image."""
    return fair.Config(**{"teacher": "weighted", "student": "anchors", **settings})


def draw(seed: int = 0, *, n: int = 5, k: int = 6, epoch: int = 0, weak: bool = True) -> Batch:
    """Draw a batch whose last row is padding."""
    rng = torch.Generator().manual_seed(100 + seed)
    kinds: dict[Kind, Tensor | LazyRows] = {
        Kind("crops", "fair"): unit(rng, n, k, D),
        Kind("views", "strong"): unit(rng, n, 1, D),
    }
    if weak:
        kinds[Kind("views", "weak")] = unit(rng, n, 1, D)
    weight = torch.ones(n, dtype=torch.float64)
    weight[-1] = 0
    same: dict[str, Any] = {"index": torch.arange(n), "view": torch.full((n,), -1)}
    return Batch(
        **same,
        labels=torch.full((n,), -1),
        weights=weight,
        x=unit(rng, n, D),
        norms=torch.ones(n, dtype=torch.float64),
        step=torch.tensor(0),
        epoch=torch.tensor(epoch),
        kinds=kinds,
    )


def features(rows: Rows, kind: str, recipe: str) -> Tensor:
    found = rows.get(kind, recipe)
    assert found is not None
    return found


def begin(
    task: TaskView, config: fair.Config, hyper: fair.Hyper
) -> tuple[Tensors, Tensors, Tensors]:
    """Prepare, and move the anchors away from their start."""
    params, fixed = fair.prepare(task, config, hyper)
    rng = torch.Generator().manual_seed(7)
    moved = params["learned"] + 0.4 * torch.randn(C, D, generator=rng, dtype=torch.float64)
    return {"learned": moved}, fixed, fair.start(params, fixed, config, hyper)


# Naive loops, a scalar at a time.


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normal(a: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(a, a))
    return [x / length for x in a]


def softmax(a: Sequence[float]) -> list[float]:
    e = [math.exp(x - max(a)) for x in a]
    return [x / sum(e) for x in e]


def naive_aligned(regions: Vectors, g: list[float], keep: float, tau: float) -> list[float]:
    ranked = sorted(regions, key=lambda p: -dot(p, g))[: max(1, round(keep * len(regions)))]
    weight = softmax([dot(p, g) / tau for p in ranked])
    return normal([sum(w * p[j] for w, p in zip(weight, ranked, strict=True)) for j in range(D)])


def naive_fixed(task: TaskView, kind: str = "template") -> Vectors:
    bank = cast(TextBank, task.text)
    assert bank.description_rows is not None
    assert bank.owner is not None
    templates = bank.anchors(kind).double().tolist()
    out = []
    for c in range(C):
        total = [0.0] * D
        for t, o in zip(bank.description_rows.double().tolist(), bank.owner.tolist(), strict=True):
            if o == c:
                row = normal(t)
                total = [a + dot(row, templates[c]) * b for a, b in zip(total, row, strict=True)]
        out.append(normal(total))
    return out


def naive_guess(
    v: list[float], anchors: Vectors, fixed: Vectors, weighting: str, gamma: float
) -> tuple[int, float]:
    las = [SCALE * dot(v, a) for a in anchors]
    fix = [SCALE * dot(v, z) for z in fixed]
    r = [(1 - gamma) * a + gamma * b for a, b in zip(las, fix, strict=True)]
    order = sorted(range(C), key=lambda c: -r[c])
    p_las, p_fix, p = softmax(las), softmax(fix), softmax(r)
    agreement = p_las[order[0]] / max(p_las) * p_fix[order[0]] / max(p_fix)
    alike = max(0.0, dot(anchors[order[0]], anchors[order[1]]))
    trust = {
        "agreement": agreement,
        "margin": 1 - p[order[1]] / p[order[0]],
        "confusion": agreement * (1 - alike),
        "none": 1.0,
    }
    return order[0], trust[weighting]


def naive_loss(
    task: TaskView,
    params: Tensors,
    batch: Batch,
    config: fair.Config,
    hyper: fair.Hyper,
    before: list[float] | None,
) -> tuple[float, list[float], list[int]]:
    """Equations (1) to (7): (loss, q, guesses)."""
    anchors = [normal(a) for a in params["learned"].tolist()]
    weak = batch.get("views", "weak")
    g = batch.x.tolist() if weak is None else weak[:, 0].tolist()
    crops = features(batch, "crops", "fair").tolist()
    strong = features(batch, "views", "strong").tolist()
    kept = [i for i, w in enumerate(batch.weights.tolist()) if w > 0]
    entropy, mean, guesses = 0.0, [0.0] * C, []
    for i in kept:
        v = naive_aligned(crops[i], g[i], config.keep, hyper.tau)
        guess, trust = naive_guess(v, anchors, naive_fixed(task), config.weighting, hyper.gamma)
        p = softmax([SCALE * dot(strong[i][0], a) for a in anchors])
        entropy -= trust * math.log(p[guess]) / len(kept)
        mean = [m + x / len(kept) for m, x in zip(mean, p, strict=True)]
        guesses.append(guess)
    before = before or mean
    q = [hyper.mu * m + (1 - hyper.mu) * b for m, b in zip(mean, before, strict=True)]
    fairness = -sum(math.log(x) for x in q) / C / hyper.mu
    return entropy + hyper.lam * fairness, q, guesses


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("gamma", [0.0, 0.4])
def test_loss_and_running_mean_equal_naive_loops(weighting: Any, gamma: float) -> None:
    task = make()
    config = trained(weighting=weighting, keep=0.4)
    hyper = fair.Hyper(gamma=gamma, lam=0.7, mu=0.3, tau=0.2)
    params, fixed, state = begin(task, config, hyper)
    before: list[float] | None = None
    for seed, epoch in ((0, 0), (1, 0), (2, 1), (3, 1)):  # the running mean begins anew at 2
        batch = draw(seed, epoch=epoch, weak=seed != 1)
        before = None if seed == 2 else before
        expected, q, guesses = naive_loss(task, params, batch, config, hyper, before)
        got, state = fair.loss(params, fixed, state, batch, config, hyper)
        assert float(got) == pytest.approx(expected, abs=1e-6)
        assert state["log_mean"].exp().tolist() == pytest.approx(q, abs=1e-7)
        before = q
        if seed in (0, 2):
            assert state["guessed"].tolist() == [guesses.count(c) for c in range(C)]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_gradient_stops_at_the_pseudo_label_and_the_past(weighting: Any, epoch: int) -> None:
    """The gradient is that of the naive loss with guesses, weights and the past held fixed."""
    task, config, hyper = make(), trained(weighting=weighting), fair.Hyper(mu=0.3, gamma=0.2)
    params, fixed, state = begin(task, config, hyper)
    _, state = fair.loss(params, fixed, state, draw(0), config, hyper)
    batch = draw(1, epoch=epoch)
    leaf = params["learned"].clone().requires_grad_()
    value, _ = fair.loss({"learned": leaf}, fixed, state, batch, config, hyper)
    (got,) = torch.autograd.grad(value, leaf)

    v = pool_closest(
        features(batch, "crops", "fair"),
        features(batch, "views", "weak")[:, 0],
        config.keep,
        hyper.tau,
    )
    las = SCALE * cosine_logits(v, params["learned"])
    guess, trust = pseudo_labels(
        las, SCALE * v @ fixed["fixed"].mT, params["learned"], weighting, hyper.gamma
    )
    p = torch.softmax(SCALE * cosine_logits(features(batch, "views", "strong")[:, 0], leaf), dim=-1)
    own = -(trust * p.log()[torch.arange(5), guess])[:4].mean()
    mean = p[:4].mean(0)
    q = 0.3 * mean + 0.7 * (mean.detach() if epoch else state["log_mean"].exp())
    (expected,) = torch.autograd.grad(own - q.log().mean() / 0.3, leaf)
    assert torch.allclose(got, expected, atol=1e-9)


@pytest.mark.parametrize("infer", ["global", "las", "average"])
def test_logits_equal_naive_loops(infer: Any) -> None:
    task, hyper = make(), fair.Hyper(tau=0.2)
    config = trained(infer=infer, keep=0.5)
    params, fixed, _ = begin(task, config, hyper)
    batch = draw()
    crops = features(batch, "crops", "fair")
    rows = Rows.of(batch.x, kinds={Kind("crops", "fair"): crops})
    got = fair.combine(fair.terms(params, fixed, rows, config, hyper), fixed, config, hyper)
    anchors = [normal(a) for a in params["learned"].tolist()]
    for row, x, regions in zip(got, batch.x.tolist(), crops.tolist(), strict=True):
        v = naive_aligned(regions, x, 0.5, 0.2)
        both = {"global": [x], "las": [v], "average": [x, v]}[infer]
        for c, logit in enumerate(row.tolist()):
            expected = sum(SCALE * dot(r, anchors[c]) for r in both) / len(both) + BIAS
            assert logit == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("template", ["name", "template"])
def test_fixed_anchors_equal_naive_loops(template: Any) -> None:
    task = make()
    _, fixed = fair.prepare(task, trained(template=template), fair.Hyper())
    expected = torch.tensor(naive_fixed(task, template)).double()
    assert torch.allclose(fixed["fixed"], expected, atol=1e-6)


def test_start_is_zero_shot_by_description() -> None:
    task, config, hyper = make(), trained(), fair.Hyper()
    params, fixed = fair.prepare(task, config, hyper)
    x = draw().x
    assert task.text is not None
    expected = SCALE * x @ task.text.anchors("description").double().mT + BIAS
    got = fair.combine(fair.terms(params, fixed, Rows.of(x), config, hyper), fixed, config, hyper)
    assert torch.allclose(got, expected, atol=1e-5)


def test_all_regions_alike_give_the_mean_of_the_crops() -> None:
    batch = draw()
    crops, g = features(batch, "crops", "fair"), batch.x
    got = pool_closest(crops, g, 1.0, 1e9)
    assert torch.allclose(got, F.normalize(crops.mean(1), dim=-1), atol=1e-7)


def test_a_cold_temperature_gives_the_most_relevant_crop() -> None:
    batch = draw()
    crops, g = features(batch, "crops", "fair"), batch.x
    best = (crops @ g[..., None])[..., 0].argmax(1)
    for share, tau in ((1.0, 1e-6), (0.01, 1.0)):
        got = pool_closest(crops, g, share, tau)
        assert torch.allclose(got, crops[torch.arange(5), best], atol=1e-9)


def test_gamma_one_guesses_by_the_fixed_score_alone() -> None:
    """At gamma = 1 the pseudo-labels are those of the WCA-like score, wherever the anchors are."""
    task, config = make(), trained(weighting="none", keep=1.0)
    hyper = fair.Hyper(gamma=1.0, tau=1 / 54.6)
    params, fixed, state = begin(task, config, hyper)
    batch = draw()
    _, after = fair.loss(params, fixed, state, batch, config, hyper)
    g, crops = features(batch, "views", "weak")[:4, 0], features(batch, "crops", "fair")[:4]
    weight = torch.softmax(54.6 * (crops @ g[..., None])[..., 0], dim=-1)
    v = (weight[..., None] * crops).sum(1)
    guess = (v @ torch.tensor(naive_fixed(task)).double().mT).argmax(1)
    assert after["guessed"].tolist() == torch.bincount(guess, minlength=C).tolist()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    weighting=st.sampled_from(WEIGHTINGS),
    gamma=st.floats(0, 1),
    length=st.floats(0.1, 10),
)
def test_trust_is_a_share_and_the_length_of_anchors_does_not_matter(
    seed: int, weighting: Any, gamma: float, length: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    v, anchors, other = unit(rng, 9, D), unit(rng, C, D), unit(rng, C, D)

    def judge(anchors: Tensor) -> tuple[Tensor, Tensor]:
        las = SCALE * cosine_logits(v, anchors)
        return pseudo_labels(las, SCALE * v @ other.mT, anchors, weighting, gamma)

    guess, trust = judge(anchors)
    assert bool(((trust >= 0) & (trust <= 1)).all())
    again, same = judge(length * anchors)
    assert torch.equal(guess, again)
    assert torch.allclose(trust, same, atol=1e-9)


def test_the_batch_mean_may_be_next_to_nothing_for_a_class() -> None:
    """In float32 such a probability is 0: its logarithm must stay finite, and pull it up."""
    task, config, hyper = make(), trained(), fair.Hyper(mu=1.0)
    params, fixed, state = begin(task, config, hyper)
    narrow = {k: t.float() for k, t in fixed.items()} | {"scale": torch.tensor(2000.0)}
    batch = draw()
    thin = Batch(
        index=batch.index,
        view=batch.view,
        labels=batch.labels,
        weights=batch.weights.float(),
        x=batch.x.float(),
        norms=batch.norms.float(),
        step=batch.step,
        epoch=batch.epoch,
        kinds={kind: features(batch, *kind).float() for kind in batch.kinds},
    )
    leaf = params["learned"].float().requires_grad_()
    state = {k: t.float() for k, t in state.items()}
    value, after = fair.loss({"learned": leaf}, narrow, state, thin, config, hyper)
    (grad,) = torch.autograd.grad(value, leaf)
    assert float(after["log_mean"].exp().min()) == 0
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(grad).all())


def test_needs_name_regions_and_views() -> None:
    def read(**set_: Any) -> set[tuple[str, str, str | None]]:
        return {(n.role, n.kind, n.recipe) for n in fair.needs(trained(**set_))}

    assert ("pool", "crops", "fair") in read()
    assert ("pool", "views", "strong") in read()
    assert ("query", "crops", "fair") not in read()
    assert ("query", "crops", "fair") in read(infer="las")
    assert ("query", "patches", None) in read(infer="average", regions="patches")
    assert ("pool", "crops", "fair") not in read(regions="patches")
    assert not any(role == "support" for role, _, _ in read())
