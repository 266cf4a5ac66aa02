import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from featcache.types import TextBank
from heads.contract.rows import Kind, Rows, TaskView
from heads.methods import lazsl
from heads.ops import ragged_transport
from heads.ops.ragged_transport import Buckets

COUNTS = (3, 1, 5, 2, 4)
"""Descriptions of each class."""
SELECTIONS = ("paper", "confidence", "all")


def unit(rng: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=rng, dtype=torch.float64), dim=-1)


def make(
    seed: int = 0, *, counts: tuple[int, ...] = COUNTS, n: int = 4, k: int = 6, d: int = 5
) -> tuple[TaskView, Tensor, Tensor]:
    """Return a task without support, query rows and their crops, in float64."""
    rng = torch.Generator().manual_seed(seed)
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    owner = owner[torch.randperm(len(owner), generator=rng)]
    names = tuple(f"c{i}" for i in range(len(counts)))
    bank: Any = TextBank(
        classes=names,
        names=None,
        templates=("a {}.",),
        template_rows=unit(rng, len(counts), 1, d).float(),
        descriptions=tuple(map(str, range(len(owner)))),
        description_rows=8 * unit(rng, len(owner), d).float(),
        owner=owner,
        logit_scale=20.0,
    )
    x = unit(rng, n, d)
    crops = F.normalize(x[:, None] + 0.5 * unit(rng, n, k, d), dim=-1)
    support = Rows(x=x[:0], norms=torch.ones(0).double(), labels=None)
    view = TaskView(support=support, pool=None, text=bank, classes=names, seed=0)
    return view, x, crops


def scores(
    task: TaskView,
    x: Tensor,
    crops: Tensor,
    hyper: lazsl.Hyper | None = None,
    **config: Any,
) -> Tensor:
    """Return cosines: the logits without their scale."""
    made, hyper = lazsl.Config(**config), hyper or lazsl.Hyper()
    params, fixed = lazsl.prepare(task, made, hyper)
    rows = Rows.of(x, kinds={Kind("crops", "lazsl"): crops})
    terms = lazsl.terms(params, fixed, rows, made, hyper)
    return lazsl.combine(terms, fixed, made, hyper) / 20.0


def own_texts(task: TaskView) -> list[Tensor]:
    """Return the descriptions of each class, unit, as the method reads them."""
    bank: Any = task.text
    rows = (bank.description_rows / bank.description_rows.norm(dim=1, keepdim=True)).double()
    return [rows[bank.owner == c] for c in range(len(bank.classes))]


def dot(p: Tensor, q: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(p, q, strict=True))


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def entropy(logits: list[float]) -> float:
    return -sum(p * math.log(p) for p in softmax(logits))


def transport(similarity: list[list[float]], a: list[float], b: list[float]) -> float:
    """Equations (3) and (4) without the scale, one scalar at a time; rows of mass 0 stay in."""
    k, m = len(a), len(b)
    kernel = [[math.exp(-(1 - s) / 0.1) for s in row] for row in similarity]
    u, v = [1.0] * k, [1.0] * m
    for _ in range(100):
        before = u
        u = [a[i] / sum(kernel[i][j] * v[j] for j in range(m)) for i in range(k)]
        v = [b[j] / sum(kernel[i][j] * u[i] for i in range(k)) for j in range(m)]
        if sum(abs(p - q) for p, q in zip(u, before, strict=True)) / k < 1e-2:
            break
    cells = ((i, j) for i in range(k) for j in range(m))
    return sum(u[i] * kernel[i][j] * v[j] * similarity[i][j] for i, j in cells)


def naive_mass(
    g: Tensor, crops: Tensor, select: str, anchors: list[Tensor], sharpness: float = 50.0
) -> list[float]:
    """Equation (1)."""
    if select == "confidence":
        return softmax([sharpness * max(dot(p, t) for t in anchors) for p in crops])
    rho = [dot(p, g) for p in crops]
    kept = [select == "all" or r >= sum(rho) / len(rho) for r in rho]
    return [1 / sum(kept) if keep else 0.0 for keep in kept]


def naive_lazsl(
    g: Tensor,
    crops: Tensor,
    texts: Tensor,
    theta: float = 0.8,
    select: str = "paper",
    anchors: list[Tensor] | None = None,
) -> float:
    a = naive_mass(g, crops, select, anchors or [])
    similarity = [[theta * dot(p, q) + (1 - theta) * dot(g, q) for q in texts] for p in crops]
    return transport(similarity, a, [1 / len(texts)] * len(texts))


def naive_wca(g: Tensor, crops: Tensor, texts: Tensor, template: Tensor) -> float:
    w = softmax([math.exp(4) * dot(p, g) for p in crops])
    t = softmax([math.exp(2) * dot(q, template) for q in texts])
    image = sum(a * p for a, p in zip(w, crops, strict=True))
    text = sum(a * q for a, q in zip(t, texts, strict=True))
    assert isinstance(image, Tensor)
    assert isinstance(text, Tensor)
    return dot(image, text) / float(image.norm() * text.norm())


def naive_awt(g: Tensor, crops: Tensor, own: list[Tensor], scale: float) -> list[float]:
    regions = [g, *crops]

    def mean(p: Tensor, texts: Tensor) -> float:
        return scale * sum(dot(p, q) for q in texts) / len(texts)

    a = softmax([-entropy([mean(p, texts) for texts in own]) / 0.5 for p in regions])
    out = []
    for y, texts in enumerate(own):
        each = []
        for q in texts:
            logits = [mean(g, others) for others in own]
            logits[y] = scale * dot(g, q)
            each.append(-entropy(logits) / 0.5)
        similarity = [[dot(p, q) for q in texts] for p in regions]
        out.append(transport(similarity, a, softmax(each)))
    return out


def loops(
    score: Callable[[Tensor, Tensor, Tensor], float], task: TaskView, *rows: Tensor
) -> Tensor:
    """Apply a naive score to every image and class."""
    table = [[score(g, p, texts) for texts in own_texts(task)] for g, p in zip(*rows, strict=True)]
    return torch.tensor(table, dtype=torch.float64)


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("theta", [0.8, 0.3])
def test_scores_equal_naive_loops(theta: float, select: str) -> None:
    task, x, crops = make(k=9)
    got = scores(task, x, crops, lazsl.Hyper(theta=theta), select=select)
    anchors = [F.normalize(q.mean(0), dim=-1) for q in own_texts(task)]
    expected = loops(lambda g, p, q: naive_lazsl(g, p, q, theta, select, anchors), task, x, crops)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-7)  # texts are float32


def test_many_crops_are_solved_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """One group of all images with other crops left out, two, and one for every number."""
    task, x, crops = make(n=6, k=11)
    kept = lazsl.selected(lazsl.closeness(crops, x)).sum(-1)
    assert len(set(kept.tolist())) > 1
    assert int(kept.max()) < 11
    expected = loops(naive_lazsl, task, x, crops)
    for fill in (0.01, 0.8, 1.0):
        monkeypatch.setattr(ragged_transport, "REGION_FILL", fill)
        torch.testing.assert_close(
            scores(task, x, crops, select="paper"), expected, rtol=0, atol=1e-7
        )


@pytest.mark.parametrize(
    ("key", "config", "theta"),
    [("logits", {"select": "paper"}, 0.8), ("logits_plain", {"select": "all"}, 1.0)],
)
def test_golden(
    key: str, config: dict[str, str], theta: float, shared: Callable[[str], Path]
) -> None:
    # shiming-chen/LaZSL@c098dc9 OP.py OP_d, eps 0.1, float32
    with np.load(shared("golden/lazsl_OP_d.npz")) as file:
        views, texts = torch.from_numpy(file["views"]), torch.from_numpy(file["texts"])
        counts, expected = torch.from_numpy(file["text_counts"]), torch.from_numpy(file[key])
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    names = tuple(f"c{i}" for i in range(len(counts)))
    bank = TextBank(
        classes=names,
        names=None,
        templates=(),
        template_rows=None,
        descriptions=tuple(map(str, range(len(texts)))),
        description_rows=texts,
        owner=owner,
        logit_scale=20.0,
    )
    x, crops = views[0], views[1:].transpose(0, 1)
    support = Rows(x=x[:0], norms=torch.ones(0), labels=None)
    task = TaskView(support=support, pool=None, text=bank, classes=names, seed=0)
    got = scores(task, x, crops, lazsl.Hyper(theta=theta), **config)
    assert float((got - expected).abs().max()) < 1e-5


def test_dclip_equals_naive_loops() -> None:
    task, x, crops = make()
    expected = loops(lambda g, _, q: sum(dot(g, t) for t in q) / len(q), task, x, crops)
    torch.testing.assert_close(scores(task, x, crops, score="dclip"), expected, rtol=0, atol=1e-7)


def test_theta_zero_is_dclip() -> None:
    task, x, crops = make()
    for select in SELECTIONS:
        got = scores(task, x, crops, lazsl.Hyper(theta=0.0), select=select)
        torch.testing.assert_close(got, scores(task, x, crops, score="dclip"), rtol=0, atol=1e-12)


def test_wca_equals_naive_loops() -> None:
    task, x, crops = make()
    bank: Any = task.text
    own, templates = own_texts(task), bank.template_rows[:, 0].double()
    expected = [
        [naive_wca(g, p, q, t) for q, t in zip(own, templates, strict=True)]
        for g, p in zip(x, crops, strict=True)
    ]
    got = scores(task, x, crops, score="wca")
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_awt_equals_naive_loops() -> None:
    task, x, crops = make()
    rows = [naive_awt(g, p, own_texts(task), 20.0) for g, p in zip(x, crops, strict=True)]
    got = scores(task, x, crops, score="awt")
    torch.testing.assert_close(got, torch.tensor(rows).double(), rtol=0, atol=1e-7)


def test_one_description_a_class_gives_the_mean_over_kept_crops() -> None:
    task, x, crops = make(counts=(1, 1, 1))
    kept = lazsl.selected(lazsl.closeness(crops, x)).double()
    hybrid = 0.8 * crops + 0.2 * x[:, None]
    each = torch.stack([hybrid @ q[0] for q in own_texts(task)], dim=-1)  # [n k c]
    mean = (kept[..., None] * each).sum(1) / kept.sum(1, keepdim=True)
    torch.testing.assert_close(scores(task, x, crops, select="paper"), mean, rtol=0, atol=1e-7)


def test_a_heavy_entropy_gives_the_mean_over_all_pairs() -> None:
    task, x, crops = make()
    got = scores(task, x, crops, lazsl.Hyper(reg=1e6, tol=1e-9, theta=1.0), select="all")
    expected = torch.stack([(crops @ q.T).mean((1, 2)) for q in own_texts(task)], dim=-1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_no_sharpness_takes_all_crops_and_much_the_surest() -> None:
    task, x, crops = make()
    got = scores(task, x, crops, lazsl.Hyper(sharpness=0.0))
    torch.testing.assert_close(got, scores(task, x, crops, select="all"), rtol=0, atol=1e-12)
    anchors = torch.stack([F.normalize(q.mean(0), dim=-1) for q in own_texts(task)])
    surest = (crops @ anchors.T).amax(-1).argmax(-1)
    alone = torch.stack([p[i : i + 1] for p, i in zip(crops, surest, strict=True)])
    got = scores(task, x, crops, lazsl.Hyper(sharpness=1e6))
    torch.testing.assert_close(got, scores(task, x, alone, select="all"), rtol=0, atol=1e-7)


def test_a_crop_of_another_class_that_is_sure_misleads() -> None:
    """What confidence costs: one sharp window of something else outweighs many of the image."""
    task, x, _ = make(counts=(1, 1), n=1)
    own, other = (q[0] for q in own_texts(task))
    crops = torch.stack([F.normalize(own + 0.7 * x[0], dim=-1)] * 5 + [other])[None]
    right = scores(task, own[None], crops, select="paper")
    wrong = scores(task, own[None], crops, lazsl.Hyper(theta=1.0, sharpness=200.0))
    assert int(right.argmax()) == 0
    assert int(wrong.argmax()) == 1


def test_kept_crops_are_those_above_the_average() -> None:
    rho = torch.tensor([[0.1, 0.2, 0.6], [0.5, 0.5, 0.5], [0.9, 0.7, 0.8]])
    expected = torch.tensor([[0, 0, 1], [1, 1, 1], [1, 0, 1]]).bool()
    assert torch.equal(lazsl.selected(rho), expected)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 0.123456789])
@pytest.mark.parametrize("k", [1, 3, 7, 90])
def test_equal_crops_are_all_kept(value: float, k: int) -> None:
    """Their mean may be rounded above each of them."""
    assert bool(lazsl.selected(torch.full((1, k), value)).all())


@pytest.mark.parametrize(
    "config",
    [{"select": "paper"}, {"select": "confidence"}, {"score": "wca"}, {"score": "awt"}],
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_order_of_crops_and_descriptions_does_not_matter(config: dict[str, Any], seed: int) -> None:
    task, x, crops = make(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    bank: Any = task.text
    order = torch.randperm(len(bank.owner), generator=rng)
    mixed = replace(bank, description_rows=bank.description_rows[order], owner=bank.owner[order])
    turned = crops[:, torch.randperm(crops.shape[1], generator=rng)]
    got = scores(replace(task, text=mixed), x, turned, **config)
    torch.testing.assert_close(got, scores(task, x, crops, **config), rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", [*({"select": how} for how in SELECTIONS), {"score": "awt"}])
@pytest.mark.parametrize("fill", [0.01, 0.5, 1.0])
def test_padding_of_descriptions_changes_nothing(
    config: dict[str, Any], fill: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bucket for all classes, some, and one for every number of descriptions."""
    task, x, crops = make()
    expected = scores(task, x, crops, **config)
    monkeypatch.setattr(ragged_transport, "TEXT_FILL", fill)
    monkeypatch.setattr(ragged_transport, "TEXT_LACK", 0)
    _, fixed = lazsl.prepare(task, lazsl.Config(score="awt"), lazsl.Hyper())
    assert len(Buckets.read(fixed).masses) == {0.01: 1, 0.5: 2, 1.0: 5}[fill]
    got = scores(task, x, crops, **config)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "config",
    [*({"select": how} for how in SELECTIONS), *({"score": s} for s in ("dclip", "wca", "awt"))],
)
def test_a_batch_equals_single_images(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, x, crops = make(n=5)
    whole = scores(task, x, crops, **config)
    alone = [scores(task, x[i : i + 1], crops[i : i + 1], **config) for i in range(5)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-12)
    monkeypatch.setattr(ragged_transport, "SIMILARITY_BYTES", {"cpu": 1})
    torch.testing.assert_close(scores(task, x, crops, **config), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("score", ["lazsl", "awt"])
def test_solver_pot_solves_the_same_problem(score: str) -> None:
    pytest.importorskip("ot")
    task, x, crops = make(n=2)
    ends = lazsl.Hyper(tol=0.0)
    ours = scores(task, x, crops, ends, score=score, max_iter=5000)
    pot = scores(task, x, crops, ends, score=score, solver="pot")
    torch.testing.assert_close(ours, pot, rtol=0, atol=1e-8)
    early = scores(task, x, crops, score=score)  # the released stop rule is close to the end
    torch.testing.assert_close(early, pot, rtol=0, atol=2e-3)


def test_other_texts_can_be_matched() -> None:
    task, x, crops = make()
    bank: Any = task.text
    kept = lazsl.selected(lazsl.closeness(crops, x)).double()
    each = (0.8 * crops + 0.2 * x[:, None]) @ bank.template_rows[:, 0].double().T
    mean = (kept[..., None] * each).sum(1) / kept.sum(1, keepdim=True)
    got = scores(task, x, crops, select="paper", text="template")
    torch.testing.assert_close(got, mean, rtol=0, atol=1e-6)


def test_values_are_the_released_ones() -> None:
    hyper, config = lazsl.Hyper(), lazsl.Config()
    assert (hyper.theta, hyper.reg, hyper.tol, config.max_iter) == (0.8, 0.1, 1e-2, 100)
    assert math.exp(4) == lazsl.SHARPNESS_CROPS
    assert math.exp(2) == lazsl.SHARPNESS_TEXTS
