import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import ConvergenceWarning, MissingComponentError
from featcache.types import FeatureSet
from heads.contract.rows import Batch, Kind, Rows, TaskView
from heads.methods import dac, tip_adapter
from heads.protocols import training
from heads.training.trainer import train

HYPER = dac.Hyper(alpha=0.7, beta=2.0, tau=0.3, l2=0.2, l2_text=0.4)
World = Callable[..., FeatureSet]
Params = dict[str, Tensor]


def moved(task: TaskView, config: dac.Config, seed: int = 1) -> tuple[Params, Params]:
    """Return (params, fixed) with parameters away from their start and the keys frozen there."""
    params, fixed = dac.prepare(task, config, HYPER)
    rng = torch.Generator().manual_seed(seed)
    params = {
        k: v + 0.3 * torch.randn(v.shape, generator=rng, dtype=v.dtype) for k, v in params.items()
    }
    return params, dac.freeze_keys(params, fixed, config, HYPER)


def logits(
    params: Params, fixed: Params, x: Tensor, config: dac.Config, hyper: dac.Hyper = HYPER
) -> Tensor:
    return dac.combine(dac.terms(params, fixed, Rows.of(x), config, hyper), fixed, config, hyper)


def naive_unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in row))
    return [v / length for v in row]


def naive_h(row: list[float], w: Tensor) -> list[float]:
    """Equation (1) a scalar at a time."""
    d = len(row)
    return naive_unit([row[i] + sum(float(w[i, j]) * row[j] for j in range(d)) for i in range(d)])


def dot(a: list[float], b: list[float]) -> float:
    return sum(u * v for u, v in zip(a, b, strict=True))


def naive_texts(params: Params, anchors: Tensor, modulation: str) -> list[list[float]]:
    c, d = anchors.shape
    p, t = params["text"], anchors
    if modulation == "direct":
        return [[float(p[k, i]) for i in range(d)] for k in range(c)]
    if modulation == "residual":
        return [[float(t[k, i]) + 0.5 * float(p[k, i]) for i in range(d)] for k in range(c)]
    return [
        [float(t[k, i]) + sum(float(t[k, j]) * float(p[j, i]) for j in range(d)) for i in range(d)]
        for k in range(c)
    ]


def naive_logits(
    task: TaskView,
    params: Params,
    anchors: Tensor,
    x: list[float],
    modulation: str,
    own: int | None = None,
    own_key: list[float] | None = None,
) -> list[float]:
    """Equations (1), (3) and (4); the key of row `own` is left out or replaced."""
    assert task.support.labels is not None
    views = task.support.get("views")
    row = [20.0 * dot(x, naive_unit(t)) - 3.0 for t in naive_texts(params, anchors, modulation)]
    for m, label in enumerate(task.support.labels.tolist()):
        key = task.support.x[m] if views is None else views[m].mean(0)
        shown = naive_unit(key.tolist())
        if m == own and own_key is None:
            continue
        if m == own and own_key is not None:
            shown = own_key
        closeness = dot(naive_h(x, params["map"]), naive_h(shown, params["map"]))
        row[label] += 0.7 * math.exp(-2.0 * (1 - closeness))
    return row


@pytest.mark.parametrize("modulation", ["direct", "residual", "map"])
@pytest.mark.parametrize("views", [0, 3])
def test_logits_equal_naive_loops(toy: Any, modulation: Any, views: int) -> None:
    task, x = toy(bias=-3.0, views=views)
    config = dac.Config(modulation=modulation)
    params, fixed = moved(task, config)
    expected = [naive_logits(task, params, fixed["anchors"], q.tolist(), modulation) for q in x]
    got = logits(params, fixed, x, config)
    assert torch.allclose(got, torch.tensor(expected).double(), atol=1e-6)


def two_views(task: TaskView, *, clean: bool = False) -> Batch:
    """Return two different views of every row; the last four entries are padding."""
    views, labels = task.support.get("views"), task.support.labels
    n = len(task.support.x)
    index = torch.arange(n).repeat_interleave(2)
    view = torch.full_like(index, -1) if clean else torch.tensor([0, 2]).repeat(n)
    weight = torch.ones(2 * n, dtype=task.support.x.dtype)
    weight[-4:] = 0
    weight[0] = 2.5  # a class weight
    zero = torch.tensor(0)
    assert labels is not None
    assert views is not None
    x = task.support.x[index] if clean else views[index, view]
    return Batch(
        index=index,
        view=view,
        labels=labels[index],
        weights=weight,
        x=x,
        norms=torch.ones_like(weight),
        step=zero,
        epoch=zero,
    )


@pytest.mark.parametrize("clean", [False, True])
def test_contrastive_loss_equals_naive_loops(toy: Any, clean: bool) -> None:
    task, _ = toy(views=3)
    params, fixed = moved(task, dac.Config())
    batch = two_views(task, clean=clean)
    got, state = dac.contrastive_loss(params, fixed, {}, batch, dac.Config(), HYPER)
    h = [naive_h(row.tolist(), params["map"]) for row in batch.x]
    who = list(zip(batch.index.tolist(), batch.view.tolist(), strict=True))
    w, y = batch.weights.tolist(), batch.y.tolist()
    total, lonely = 0.0, 0
    for b in range(len(h)):
        if not w[b]:
            continue
        others = [a for a in range(len(h)) if w[a] and who[a] != who[b]]
        below = sum(math.exp(dot(h[b], h[a]) / 0.3) for a in others)
        positives = [p for p in others if y[p] == y[b]]
        lonely += not positives
        logs = [math.log(math.exp(dot(h[b], h[p]) / 0.3) / below) for p in positives]
        total -= w[b] * sum(logs) / max(1, len(logs))
    assert (lonely > 0) == clean  # the class of one image, where views do not help
    expected = total / sum(w) + 0.2 * sum(float(v) ** 2 for v in params["map"].flatten()) / 2.5
    assert float(got) == pytest.approx(expected, abs=1e-9)
    assert state == {}


@pytest.mark.parametrize("modulation", ["direct", "residual", "map"])
@pytest.mark.parametrize("affinity", ["leave-one-out", "leave-one-out-or-text", "view-disjoint"])
def test_fused_loss_equals_naive_loops(toy: Any, modulation: Any, affinity: Any) -> None:
    task, _ = toy(bias=-3.0, views=3)
    config = dac.Config(modulation=modulation, affinity=affinity)
    params, fixed = moved(task, config)
    batch = two_views(task)
    views = task.support.get("views")
    got, _ = dac.fused_loss(params, fixed, {}, batch, config, HYPER)
    total, lonely = 0.0, 0
    for b, weight in enumerate(batch.weights.tolist()):
        i, seen = int(batch.index[b]), int(batch.view[b])
        rest = naive_unit(sum(views[i, v] for v in range(3) if v != seen).tolist())
        own_key = rest if affinity == "view-disjoint" else None
        row = naive_logits(
            task, params, fixed["anchors"], batch.x[b].tolist(), modulation, i, own_key
        )
        is_only = int((task.support.labels == batch.labels[b]).sum()) == 1
        lonely += is_only
        if is_only and affinity == "leave-one-out-or-text":
            texts = naive_texts(params, fixed["anchors"], modulation)
            row = [20.0 * dot(batch.x[b].tolist(), naive_unit(t)) - 3.0 for t in texts]
        total += weight * (math.log(sum(map(math.exp, row))) - row[int(batch.y[b])])
    assert lonely > 0  # the toy has a class of one image
    texts = naive_texts(params, fixed["anchors"], modulation)
    pull = sum(
        (u - float(a)) ** 2
        for t, r in zip(texts, fixed["anchors"], strict=True)
        for u, a in zip(t, r, strict=True)
    )
    expected = total / float(batch.weights.sum()) + 0.4 * pull / 2.5
    assert float(got) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("views", [0, 3])
def test_untrained_is_tip_adapter(toy: Any, views: int) -> None:
    task, x = toy(views=views)
    for modulation in ("direct", "residual", "map"):
        config: Any = dac.Config(modulation=modulation)
        params, fixed = dac.prepare(task, config, HYPER)
        fixed = dac.freeze_keys(params, fixed, config, HYPER)
        twin = tip_adapter.Hyper(alpha=HYPER.alpha, beta=HYPER.beta)
        _, memory = tip_adapter.prepare(task, tip_adapter.Config(), twin)
        terms = tip_adapter.terms({}, memory, Rows.of(x), tip_adapter.Config(), twin)
        expected = tip_adapter.combine(terms, memory, tip_adapter.Config(), twin)
        assert torch.allclose(logits(params, fixed, x, config), expected, atol=1e-12)


def test_zero_alpha_without_text_training_is_zero_shot(toy: Any) -> None:
    task, x = toy(bias=-3.0, views=3)
    params, fixed = moved(task, dac.Config())
    params["text"] = dac.prepare(task, dac.Config(), HYPER)[0]["text"]
    zero_shot = 20.0 * x @ fixed["anchors"].T - 3.0
    got = logits(params, fixed, x, dac.Config(), replace(HYPER, alpha=0.0))
    assert torch.allclose(got, zero_shot, atol=1e-12)


def test_text_at_its_start_is_dac_v(toy: Any) -> None:
    task, x = toy(views=3)
    v = dac.Config(stage="v", steps=9)
    vt = dac.Config(stage="vt", steps=9, steps_text=0)
    (one,) = train(dac.METHOD, v, [task], [HYPER])
    (both,) = train(dac.METHOD, vt, [task], [HYPER])
    assert torch.equal(one.head.params["map"], both.head.params["map"])
    assert bool(one.head.params["map"].any())
    assert torch.equal(
        logits(one.head.params, one.head.fixed, x, v),
        logits(both.head.params, both.head.fixed, x, vt),
    )


def test_a_strong_pull_keeps_the_identity(toy: Any) -> None:
    task, _ = toy(views=3)
    (free,) = train(dac.METHOD, dac.Config(stage="v", steps=60), [task], [replace(HYPER, l2=0.0)])
    (held,) = train(dac.METHOD, dac.Config(stage="v", steps=60), [task], [replace(HYPER, l2=1e6)])
    far, near = (float(r.head.params["map"].norm()) for r in (free, held))
    assert near < 0.1 * far


def test_a_row_does_not_see_its_own_key(toy: Any) -> None:
    """Changing key i leaves row i's own loss alone, bit by bit, and moves the others'."""
    task, _ = toy(views=3)
    config = dac.Config()
    params, fixed = moved(task, config)
    batch = two_views(task)
    for i in (0, 2):
        other = fixed | {"keys": fixed["keys"].index_fill(0, torch.tensor([i]), 0.4)}
        for b in range(len(batch.x)):
            one = replace(
                batch,
                index=batch.index[[b]],
                view=batch.view[[b]],
                labels=batch.labels[[b]],
                norms=batch.norms[[b]],
                x=batch.x[[b]],
                weights=torch.ones(1, dtype=batch.x.dtype),
            )
            before, _ = dac.fused_loss(params, fixed, {}, one, config, HYPER)
            after, _ = dac.fused_loss(params, other, {}, one, config, HYPER)
            assert torch.equal(before, after) == (int(batch.index[b]) == i)


def test_a_view_does_not_see_itself(toy: Any) -> None:
    """View-disjoint: the own key is made of the other views, so changing them alone moves it."""
    task, _ = toy(views=3)
    config = dac.Config(affinity="view-disjoint")
    params, _ = moved(task, config)
    batch = two_views(task)
    i, seen = 2, 2
    b = 2 * i + 1
    assert (int(batch.index[b]), int(batch.view[b])) == (i, seen)
    others = [v for v in range(3) if v != seen]

    def loss(changed: list[int]) -> Tensor:
        views = task.support.get("views").clone()
        views[i, changed] = views[i, changed].flip(-1)
        x = views[i, [seen]] if seen in changed else batch.x[[b]]
        turned = replace(task, support=replace(task.support, kinds={Kind("views", "rrc50"): views}))
        _, start = dac.prepare(turned, config, HYPER)
        kept = dac.freeze_keys(params, start, config, HYPER)
        # the query side stays as it was: what moves is the key
        kept["views_sum"] = kept["views_sum"].index_add(0, torch.tensor([i]), batch.x[[b]] - x)
        one = replace(
            batch,
            index=batch.index[[b]],
            view=batch.view[[b]],
            labels=batch.labels[[b]],
            norms=batch.norms[[b]],
            x=batch.x[[b]],
            weights=torch.ones(1, dtype=batch.x.dtype),
        )
        return dac.fused_loss(params, kept, {}, one, config, HYPER)[0]

    assert float(loss([seen])) == pytest.approx(float(loss([])), abs=1e-12)
    assert abs(float(loss(others)) - float(loss([]))) > 1e-4


def test_training_brings_classes_together(toy: Any) -> None:
    task, _ = toy(counts=(4, 4, 4), views=3)
    hyper = replace(HYPER, l2=0.0, lr=0.03)
    (run,) = train(dac.METHOD, dac.Config(stage="v", steps=60), [task], [hyper])
    labels = task.support.labels
    assert labels is not None
    same = labels[:, None] == labels[None]

    def gap(keys: Tensor) -> float:
        cosine = keys @ keys.mT
        return float(cosine[same].mean() - cosine[~same].mean())

    _, fixed = dac.prepare(task, dac.Config(), HYPER)
    assert gap(run.head.fixed["keys"]) > gap(fixed["keys"]) + 0.2


def test_one_image_a_class_without_views_keeps_the_identity(toy: Any) -> None:
    task, _ = toy(counts=(1, 1, 1))
    with pytest.warns(ConvergenceWarning, match="keeps its adapter at the identity"):
        (run,) = train(dac.METHOD, dac.Config(steps=5, steps_text=3), [task], [HYPER])
    assert not run.head.params["map"].any()
    assert run.head.params["text"].any()


def test_the_record_says_that_the_adapter_stayed(world: World) -> None:
    def notes(shots: int, views: int) -> str:
        settings = {"steps": 3, "steps_text": 2, "alpha": 1.0, "beta": 2.0}
        features = world(views=views, counts={"train": 3, "val": 2, "test": 2})
        result = training.run("dac", features=features, shots=shots, seeds=[1], settings=settings)
        return " ".join(result.notes)

    assert "keeps its adapter at the identity" in notes(1, 0)
    assert "keeps its adapter at the identity" not in notes(1, 3)
    assert "keeps its adapter at the identity" not in notes(2, 0)


def test_view_disjoint_needs_views(world: World) -> None:
    with pytest.raises(MissingComponentError, match=r"views=\['"):
        training.run(
            "dac", features=world(), shots=2, seeds=[1], settings={"affinity": "view-disjoint"}
        )


def test_the_text_stage_gets_what_the_search_chose(toy: Any) -> None:
    task, _ = toy(views=3)

    class Judge:
        def accuracy(self, task: int, head: Any) -> float | None:
            return None

        def search(self, task: int, point: int, stage: int, head: Any) -> dict[str, float]:
            assert stage == 0
            expected = dac.adapt(head.params, dac.prepare(view, config, HYPER)[1]["keys"])
            assert torch.allclose(head.fixed["keys"], expected)
            return {"alpha": 3.0, "beta": 9.0}

    view, config = task, dac.Config(steps=4, steps_text=4)
    (run,) = train(dac.METHOD, config, [task], [HYPER], Judge())
    assert (run.head.hyper.alpha, run.head.hyper.beta) == (3.0, 9.0)
    (other,) = train(dac.METHOD, config, [task], [replace(HYPER, alpha=3.0, beta=9.0)])
    assert torch.equal(run.head.params["text"], other.head.params["text"])


def test_stages() -> None:
    adapter, texts = dac.stages(dac.Config())
    assert [set(s.trains or ()) for s in (adapter, texts)] == [{"map"}, {"text"}]
    assert adapter.search
    assert (adapter.batches.kind, adapter.batches.views) == ("balanced", 2)
    assert [set(s.trains or ()) for s in dac.stages(dac.Config(stage="v"))] == [{"map"}]
    assert len(dac.METHOD.train_grid) * len(dac.METHOD.post_grid) <= 100
