import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import UsageError
from heads.contract.rows import Batch, Kind, Rows, TaskView, Tensors
from heads.cycle_steps import head
from heads.fitted import Fitted
from heads.methods import cc_cdfsl as cc
from heads.ops.attention import Pick
from heads.ops.cycles import image_cycle, text_cycle
from heads.training.trainer import train

VIEWS, PATCHES, D = 2, 5, 6
PLAIN = cc.Config(patch_map="none")


@pytest.fixture(name="task")
def cdfsl_task(toy: Callable[..., tuple[TaskView, Tensor]]) -> TaskView:
    """Ten images of four classes in float64, with two views and five patches."""
    view, _ = toy(bias=-3.0)
    rng = torch.Generator().manual_seed(5)

    def near(rows: Tensor, *shape: int) -> Tensor:
        middle = rows.reshape(len(rows), *(1 for _ in shape), D)
        noise = torch.randn(len(rows), *shape, D, generator=rng, dtype=torch.float64)
        return F.normalize(middle + 0.5 * noise, dim=-1)

    x = view.support.x
    kinds = {
        Kind("patches"): near(x, PATCHES),
        Kind("views", "cdfsl"): near(x, VIEWS),
        Kind("view_patches", "cdfsl"): near(x, VIEWS, PATCHES),
    }
    return replace(view, support=replace(view.support, kinds=kinds))


def moved(task: TaskView, config: cc.Config) -> tuple[Tensors, Tensors]:
    """Return parameters away from their start, and what is fixed."""
    params, fixed = cc.prepare(task, config, cc.Hyper())
    rng = torch.Generator().manual_seed(1)
    noise = {n: torch.randn(p.shape, generator=rng, dtype=p.dtype) for n, p in params.items()}
    return {n: p + 0.4 * noise[n] for n, p in params.items()}, fixed


def batch_of(task: TaskView, whole_batch: Any) -> Batch:
    made: Batch = whole_batch(task)
    views = Kind("views", "cdfsl")
    return replace(made, kinds={views: task.support.kinds[views]})


def features(rows: Rows, kind: str, recipe: str = "") -> Tensor:
    found = rows.get(kind, recipe)
    assert found is not None
    return found


def unit(v: list[float]) -> list[float]:
    length = math.sqrt(sum(a * a for a in v))
    return [a / length for a in v]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_head(params: Tensors, x: list[float], step: float) -> list[float]:
    down, up = params["down"].tolist(), params["up"].tolist()
    hidden = [max(0.0, sum(x[i] * down[i][r] for i in range(D))) for r in range(len(up))]
    return unit([x[i] + step * sum(h * up[r][i] for r, h in enumerate(hidden)) for i in range(D)])


def naive_pick(scores: list[float], tau: float, soft: bool) -> list[float]:
    if not soft:
        best = scores.index(max(scores))
        return [float(i == best) for i in range(len(scores))]
    weights = [math.exp((s - max(scores)) / tau) for s in scores]
    return [w / sum(weights) for w in weights]


def mix(weights: list[float], rows: list[list[float]]) -> list[float]:
    return [sum(w * row[i] for w, row in zip(weights, rows, strict=True)) for i in range(D)]


Patch = tuple[int, int, list[float]]
"""Image, view, row after the head."""


def naive_cycles(
    patches: list[Patch], texts: list[list[float]], hyper: cc.Hyper, soft: bool, retrieval: str
) -> tuple[float, float]:
    """Equations (3) to (7), a scalar at a time: (L_text, L_img)."""
    rows = [row for _, _, row in patches]
    total = 0.0
    for j, text in enumerate(texts):
        u = unit(mix(naive_pick([dot(text, r) for r in rows], hyper.tau, soft), rows))
        back = naive_pick([dot(u, t) for t in texts], hyper.tau_back, soft)
        total += -math.log(back[j]) if soft else 1 - dot(text, unit(mix(back, texts)))
    kept = 0.0
    for n, (image, view, row) in enumerate(patches):
        told = unit(mix(naive_pick([dot(row, t) for t in texts], hyper.tau_back, soft), texts))
        there = [
            other
            for m, (i, v, other) in enumerate(patches)
            if m != n
            and (retrieval == "all-images" or i == image)
            and (retrieval != "cross-view" or v != view)
        ]
        found = unit(mix(naive_pick([dot(told, r) for r in there], hyper.tau, soft), there))
        kept += dot(row, found)
    return total / len(texts), 1 - kept / len(patches)


def naive_map(task: TaskView, ridge: float) -> TaskView:
    """Equation (0): stack every patch, and the penalty as d rows more, and solve least squares."""
    rows, texts = task.support, task.text
    assert texts is not None
    x, y = [], []
    for image, label in enumerate(rows.y.tolist()):
        for view in [features(rows, "patches")[image], *features(rows, "view_patches")[image]]:
            x += view.tolist()
            y += [texts.anchors().tolist()[label]] * len(view)
    penalty = math.sqrt(ridge * len(x) / D)
    x += [[penalty * (i == j) for j in range(D)] for i in range(D)]
    y += [[penalty * (i == j) for j in range(D)] for i in range(D)]
    a = torch.linalg.lstsq(*(torch.tensor(t, dtype=torch.float64) for t in (x, y))).solution
    kinds = {
        kind: values if kind.name == "views" else F.normalize(values @ a, dim=-1)
        for kind, values in rows.kinds.items()
        if isinstance(values, Tensor)
    }
    return replace(task, support=replace(rows, kinds=kinds))


@pytest.mark.parametrize("anchors", ["image", "corpus"])
@pytest.mark.parametrize("ridge", [1e-4, 0.3])
def test_the_map_moves_the_patches_and_nothing_else(
    task: TaskView, anchors: Any, ridge: float
) -> None:
    """With the map all is as with patches that were mapped beforehand, by other means."""
    hyper = cc.Hyper(ridge=ridge)
    got = cc.prepare(task, cc.Config(anchors=anchors, k=4), hyper)
    plain = cc.Config(anchors=anchors, k=4, patch_map="none")
    expected = cc.prepare(naive_map(task, ridge), plain, hyper)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    unmoved = cc.prepare(task, plain, hyper)[1]["pool"]
    assert unmoved.shape != got[1]["pool"].shape or not torch.allclose(unmoved, got[1]["pool"])


def naive_anchors(task: TaskView, k: int, rivals: int) -> list[tuple[int, int, list[float]]]:
    """Equation (2): image, view and row of every patch that is kept, each once."""
    assert task.text is not None
    assert task.support.labels is not None
    anchors = task.text.anchors().double().tolist()
    rows, kept = task.support, []
    for image, y in enumerate(rows.labels.tolist() if rows.labels is not None else []):
        x = rows.x[image].tolist()
        others = sorted((c for c in range(4) if c != y), key=lambda c: -dot(x, anchors[c]))
        clean = features(rows, "patches")[image].tolist()
        views = [clean, *features(rows, "view_patches", "cdfsl")[image].tolist()]
        for v, patches in enumerate(views):
            chosen: set[int] = set()
            for c in [y, *others[:rivals]]:
                order = sorted(range(PATCHES), key=lambda p: -dot(patches[p], anchors[c]))
                chosen |= set(order[: math.ceil(k / len(views))])
            kept += [(image, v, patches[p]) for p in sorted(chosen)]
    return kept


@pytest.mark.parametrize(("k", "rivals"), [(3, 1), (4, 3), (1, 0)])
def test_anchors_equal_naive_loops(task: TaskView, k: int, rivals: int) -> None:
    _, fixed = cc.prepare(task, cc.Config(k=k, rivals=rivals, patch_map="none"), cc.Hyper())
    got = [
        (i, int(fixed["view"][u]), fixed["pool"][i, u].tolist())
        for i in range(len(task.support.x))
        for u in range(fixed["pool"].shape[1])
        if fixed["kept"][i, u] > 0
    ]
    assert got == naive_anchors(task, k, rivals)
    assert fixed["owner"].tolist() == [
        [y] * fixed["pool"].shape[1] for y in task.support.y.tolist()
    ]


@pytest.mark.parametrize("cycle", ["soft", "literal", "straight-through"])
@pytest.mark.parametrize("retrieval", ["cross-view", "intra-image", "all-images"])
@pytest.mark.parametrize("control", ["none", "augment-only"])
def test_loss_equals_naive_loops(
    task: TaskView, whole_batch: Any, cycle: Any, retrieval: Any, control: Any
) -> None:
    config = replace(
        PLAIN, cycle=cycle, retrieval=retrieval, control=control, k=6, rivals=2, rank=3
    )
    hyper = cc.Hyper(lam_text=0.7, lam_image=1.3, identity=0.4, step=0.8, tau=0.3, tau_back=0.2)
    params, fixed = moved(task, config)
    batch = batch_of(task, whole_batch)
    got, _ = cc.loss(params, fixed, cc.start(params, fixed, config, hyper), batch, config, hyper)

    images = [i for i, w in enumerate(batch.weights.tolist()) if w > 0]
    assert len(images) < len(batch.x)
    texts = [unit(t) for t in params["text"].tolist()]
    entropy = drift = 0.0
    for i in images:
        for row in [batch.x[i].tolist(), *features(task.support, "views", "cdfsl")[i].tolist()]:
            g = naive_head(params, row, 0.8)
            logits = [20.0 * dot(g, t) - 3.0 for t in texts]
            entropy += math.log(sum(map(math.exp, logits))) - logits[int(batch.y[i])]
            drift += 1 - dot(g, row)
    seen = len(images) * (1 + VIEWS)
    raw = [p for p in naive_anchors(task, 6, 2) if p[0] in images]
    patches = [(i, v, naive_head(params, row, 0.8)) for i, v, row in raw]
    drifts = [1 - dot(p[2], r[2]) for p, r in zip(patches, raw, strict=True)]
    anchors = fixed["anchors"].tolist()
    text_drift = sum(1 - dot(t, a) for t, a in zip(texts, anchors, strict=True)) / len(texts)
    expected = entropy / seen
    expected += 0.4 * (drift / seen + sum(drifts) / len(drifts) + text_drift)
    if control == "none":
        told, shown = naive_cycles(patches, texts, hyper, cycle == "soft", retrieval)
        assert shown > 0.01
        expected += 0.7 * told + 1.3 * shown
    assert float(got) == pytest.approx(expected, abs=1e-9)


def test_without_shrinking_every_patch_is_kept(task: TaskView) -> None:
    _, fixed = cc.prepare(task, replace(PLAIN, shrink=False), cc.Hyper())
    assert fixed["pool"].shape == (len(task.support.x), (1 + VIEWS) * PATCHES, D)
    assert bool((fixed["kept"] == 1).all())
    alone_config = replace(PLAIN, shrink=False, augment=False, retrieval="intra-image")
    _, alone = cc.prepare(task, alone_config, cc.Hyper())
    assert torch.equal(alone["pool"], features(task.support, "patches"))


def test_without_views_there_is_no_other_view(task: TaskView) -> None:
    assert {n.kind for n in cc.needs(cc.Config(augment=False))} == {"global", "patches"}
    assert {n.kind for n in cc.needs(cc.Config())} >= {"views", "view_patches"}
    with pytest.raises(UsageError, match="retrieval='intra-image'"):
        cc.prepare(task, cc.Config(augment=False), cc.Hyper())


def fitted(task: TaskView, **settings: Any) -> Fitted:
    names = cc.Hyper.__dataclass_fields__
    hyper = cc.Hyper(**{n: v for n, v in settings.items() if n in names})
    config = cc.Config(**{n: v for n, v in settings.items() if n not in names})
    (run,) = train(cc.METHOD, config, [task], [hyper])
    return run.head


def test_lambdas_of_zero_are_the_control_to_the_last_bit(task: TaskView) -> None:
    control = fitted(task, control="augment-only", steps=20).params
    for other, same in (({"lam_text": 0.0, "lam_image": 0.0}, True), ({}, False)):
        params = fitted(task, steps=20, **other).params
        assert all(torch.equal(params[n], control[n]) for n in control) == same


def test_start_is_zero_shot_and_identity_keeps_it(task: TaskView, toy: Any) -> None:
    _, x = toy()
    assert task.text is not None
    zero_shot = 20.0 * x @ task.text.anchors().double().T - 3.0
    rows = replace(task.support, x=x, norms=torch.ones(len(x)).double(), labels=None, kinds={})
    torch.testing.assert_close(fitted(task, steps=0).logits(rows), zero_shot, rtol=0, atol=1e-5)
    still = fitted(task, step=0.0, train_text=False, steps=5)
    torch.testing.assert_close(still.logits(rows), zero_shot, rtol=0, atol=1e-5)
    free, held = (fitted(task, identity=i, steps=40) for i in (0.0, 1e4))
    gap = [float((h.logits(rows) - zero_shot).abs().max()) for h in (free, held)]
    assert gap[1] < 0.1 * gap[0]


def gradients(task: TaskView, config: cc.Config, which: str) -> dict[str, float]:
    """Return the size of the gradient of one cycle by parameter."""
    params, fixed = moved(task, config)
    params = {n: p.requires_grad_() for n, p in params.items()}
    texts = F.normalize(params["text"], dim=-1)
    patches = head(params, fixed["pool"], 1.0)
    parts = texts, patches, patches @ texts.mT, fixed["kept"]
    how: Any = {"cycle": config.cycle, "tau": 0.1, "tau_back": 0.1}
    if which == "text":
        value, _ = text_cycle(*parts, **how)
    else:
        value = image_cycle(*parts, fixed["view"], retrieval="cross-view", **how)
    found = torch.autograd.grad(value, list(params.values()), allow_unused=True)
    return {
        n: 0.0 if g is None else float(g.abs().sum()) for n, g in zip(params, found, strict=True)
    }


def test_the_literal_text_cycle_does_not_move_the_images(task: TaskView) -> None:
    literal = gradients(task, cc.Config(cycle="literal"), "text")
    assert literal["up"] == literal["down"] == 0
    for cycle in ("soft", "straight-through"):
        assert gradients(task, cc.Config(cycle=cycle), "text")["up"] > 1e-6


def test_only_the_soft_image_cycle_moves_the_texts_not_at_all(task: TaskView) -> None:
    assert gradients(task, cc.Config(cycle="soft"), "image")["text"] == 0
    assert gradients(task, cc.Config(cycle="literal"), "image")["text"] == 0
    assert gradients(task, cc.Config(cycle="straight-through"), "image")["text"] > 1e-6
    for cycle in ("soft", "literal"):
        assert gradients(task, cc.Config(cycle=cycle), "image")["up"] > 1e-6


def test_cold_soft_picks_are_the_literal_ones(task: TaskView) -> None:
    params, fixed = moved(task, cc.Config())
    texts = F.normalize(params["text"], dim=-1)
    patches = head(params, fixed["pool"], 1.0)
    parts = texts, patches, patches @ texts.mT, fixed["kept"], fixed["view"]
    cold: Any = {"retrieval": "cross-view", "tau": 1e-5, "tau_back": 1e-5}
    picks: tuple[Pick, ...] = ("soft", "literal", "straight-through")
    values = [float(image_cycle(*parts, cycle=cycle, **cold)) for cycle in picks]
    assert values == pytest.approx([values[0]] * 3, abs=1e-9)


def ended(before: float, after: float, **more: float) -> dict[str, list[float]]:
    """Make up what was watched: two epochs."""
    values = dict.fromkeys(cc.WATCHED, 0.0) | {"likeness_before": before, "likeness": after}
    return {name: [0.0, value] for name, value in (values | more).items()}


def test_a_constant_head_collapses_and_is_told() -> None:
    calm, bad, top = ended(0.3, 0.4), ended(0.3, 0.6), ended(0.9, 0.96)
    assert len(cc.notes([calm, calm])) == 2
    assert "collapsed in 2 of 3" in cc.notes([calm, bad, top])[2]
    assert cc.notes([{}]) == []


def test_notes_say_what_the_cycles_did() -> None:
    one = ended(0.3, 0.4, closed_before=0.5, closed=0.75, right_before=0.2, right=0.4)
    other = ended(0.3, 0.4, closed_before=0.5, closed=1.0, right_before=0.0, right=0.2)
    said = cc.notes([one, other])[1]
    assert "50% came back" in said
    assert "88% after it; of the patches 10% were closest" in said
    assert said.endswith("30% after it.")


@pytest.mark.parametrize("control", ["none", "augment-only"])
@pytest.mark.parametrize("anchors", ["image", "corpus"])
def test_training_measures_its_cycles(task: TaskView, control: Any, anchors: Any) -> None:
    """The first step measures the start, the last one the end, with and without cycles."""
    config = cc.Config(control=control, anchors=anchors, steps=1, k=4)
    (run,) = train(cc.METHOD, config, [task], [cc.Hyper()])
    fixed = cc.prepare(task, config, cc.Hyper())[1]
    cosine = fixed["pool"] @ fixed["anchors"].mT
    right = [
        int(cosine[i, u].argmax() == fixed["owner"][i, u])
        for i in range(len(cosine))
        for u in range(cosine.shape[1])
        if fixed["kept"][i, u] > 0
    ]
    assert run.watch["right_before"] == pytest.approx([sum(right) / len(right)])
    assert 0 < run.watch["right_before"][0] < 1
    assert run.watch["right"] == run.watch["right_before"]  # of one step: measured before it
    free = cc.Hyper(lr=0.05, identity=0.0, lam_text=5.0)
    (after,) = train(cc.METHOD, replace(config, steps=60), [task], [free])
    assert set(after.watch["right_before"]) == set(run.watch["right_before"])
    assert (after.watch["closed"][-1] > 0.99) == (control == "none")


def test_training_towards_the_image_cycle_alone_collapses(task: TaskView) -> None:
    config = cc.Config(steps=200, cycle="literal")
    hyper = cc.Hyper(lam_image=1e4, lam_text=0.0, identity=0.0, lr=0.03)
    (run,) = train(cc.METHOD, config, [task], [hyper])
    assert "collapsed in 1 of 1" in cc.notes([run.watch])[2]
