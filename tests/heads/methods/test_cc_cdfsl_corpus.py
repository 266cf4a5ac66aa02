"""CC-CDFSL with the patches of (2) from one corpus: against loops, and what is read when."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.errors import TaskError, UsageError
from featcache.types import FeatureSet
from heads.contract.rows import TaskView, Tensors
from heads.methods import cc_cdfsl as cc
from heads.protocols import episodic, training
from heads.results.record import Result
from heads.training.trainer import train
from tests.heads.methods.test_cc_cdfsl import (
    PLAIN,
    VIEWS,
    Patch,
    batch_of,
    cdfsl_task,  # noqa: F401  (a fixture)
    dot,
    features,
    mix,
    moved,
    naive_head,
    naive_pick,
    unit,
)
from tests.heads.toy_tasks import ALSO, make_task, rich_world

Found = tuple[int, int, int, int, list[float]]
"""Class, image, view, patch, row."""


def naive_corpus(task: TaskView, k: int, pool: bool = False) -> list[Found]:
    """Find the k patches of the corpus closest to each text; each patch for its closest text."""
    assert task.text is not None
    anchors = task.text.anchors().double().tolist()
    corpus: list[tuple[int, int, int, list[float]]] = []
    first = 0
    for rows in [task.support, *([task.pool] if pool and task.pool is not None else [])]:
        clean, views = features(rows, "patches"), features(rows, "view_patches", "cdfsl")
        for i in range(len(rows)):
            for v, patches in enumerate([clean[i], *views[i]]):
                corpus += [(first + i, v, p, row) for p, row in enumerate(patches.tolist())]
        first += len(rows)
    best: dict[tuple[int, int, int], tuple[float, Found]] = {}
    for c, text in enumerate(anchors):
        for i, v, p, row in sorted(corpus, key=lambda one: -dot(one[3], text))[:k]:
            cosine = dot(row, text)
            if (i, v, p) not in best or cosine > best[i, v, p][0]:
                best[i, v, p] = cosine, (c, i, v, p, row)
    return sorted(found for _, found in best.values())


def got(fixed: Tensors) -> list[tuple[int, int, int, list[float]]]:
    """Return class, image, view and row of every patch that is kept."""
    return sorted(
        (c, int(fixed["image"][c, u]), int(fixed["view"][c, u]), fixed["pool"][c, u].tolist())
        for c in range(fixed["pool"].shape[0])
        for u in range(fixed["pool"].shape[1])
        if fixed["kept"][c, u] > 0
    )


@pytest.mark.parametrize("k", [1, 6, 40])
def test_anchors_equal_the_brute_force_choice(task: TaskView, k: int) -> None:
    _, fixed = cc.prepare(task, replace(PLAIN, anchors="corpus", k=k), cc.Hyper())
    assert got(fixed) == sorted((c, i, v, row) for c, i, v, _, row in naive_corpus(task, k))


def test_labels_of_the_support_choose_nothing(task: TaskView) -> None:
    turned = replace(task, support=replace(task.support, labels=task.support.y.flip(0)))
    config = replace(PLAIN, anchors="corpus", k=3)
    (_, one), (_, other) = (cc.prepare(t, config, cc.Hyper()) for t in (task, turned))
    assert all(torch.equal(one[n], other[n]) for n in ("pool", "kept", "view", "image"))


@pytest.mark.parametrize("cycle", ["soft", "literal", "straight-through"])
@pytest.mark.parametrize("retrieval", ["cross-view", "intra-image", "all-images"])
@pytest.mark.parametrize("classes", [2, 4])
def test_loss_equals_naive_loops(
    task: TaskView,
    whole_batch: Any,
    cycle: Any,
    retrieval: Any,
    classes: int,
) -> None:
    config = replace(PLAIN, anchors="corpus", cycle=cycle, retrieval=retrieval, k=6, rank=3)
    hyper = cc.Hyper(lam_text=0.7, lam_image=1.3, identity=0.4, step=0.8, tau=0.3, tau_back=0.2)
    params, fixed = moved(task, config)
    drawn = [2, 0, 3, 1][:classes]
    batch = replace(batch_of(task, whole_batch), beside={"pool": torch.tensor(drawn)})
    value, _ = cc.loss(params, fixed, cc.start(params, fixed, config, hyper), batch, config, hyper)

    texts = [unit(t) for t in params["text"].tolist()]
    entropy = drift = 0.0
    images = [i for i, w in enumerate(batch.weights.tolist()) if w > 0]
    for i in images:
        for row in [batch.x[i].tolist(), *features(task.support, "views", "cdfsl")[i].tolist()]:
            g = naive_head(params, row, 0.8)
            logits = [20.0 * dot(g, t) - 3.0 for t in texts]
            entropy += math.log(sum(map(math.exp, logits))) - logits[int(batch.y[i])]
            drift += 1 - dot(g, row)
    seen = len(images) * (1 + VIEWS)
    raw = [(i, v, row) for c, i, v, _, row in naive_corpus(task, 6) if c in drawn]
    patches = [(i, v, naive_head(params, row, 0.8)) for i, v, row in raw]
    drifts = [1 - dot(p[2], r[2]) for p, r in zip(patches, raw, strict=True)]
    text_drift = sum(1 - dot(t, a) for t, a in zip(texts, fixed["anchors"].tolist(), strict=True))
    told, shown = naive_cycles(patches, texts, drawn, hyper, cycle == "soft", retrieval)
    expected = entropy / seen + 0.7 * told + 1.3 * shown
    expected += 0.4 * (drift / seen + sum(drifts) / len(drifts) + text_drift / len(texts))
    assert float(value) == pytest.approx(expected, abs=1e-6)


def naive_cycles(
    patches: list[Patch],
    texts: list[list[float]],
    drawn: list[int],
    hyper: cc.Hyper,
    soft: bool,
    retrieval: str,
) -> tuple[float, float]:
    """Equations (3) to (7) for some texts; a patch without another to find is left out of (7)."""
    rows = [row for _, _, row in patches]
    total = 0.0
    for j in drawn:
        u = unit(mix(naive_pick([dot(texts[j], r) for r in rows], hyper.tau, soft), rows))
        back = naive_pick([dot(u, t) for t in texts], hyper.tau_back, soft)
        total += -math.log(back[j]) if soft else 1 - dot(texts[j], unit(mix(back, texts)))
    kept = []
    for n, (image, view, row) in enumerate(patches):
        told = unit(mix(naive_pick([dot(row, t) for t in texts], hyper.tau_back, soft), texts))
        there = [
            other
            for m, (i, v, other) in enumerate(patches)
            if m != n
            and (retrieval == "all-images" or i == image)
            and (retrieval != "cross-view" or v != view)
        ]
        if there:
            found = unit(mix(naive_pick([dot(told, r) for r in there], hyper.tau, soft), there))
            kept.append(dot(row, found))
    return total / len(drawn), 1 - sum(kept) / max(1, len(kept))


def test_patches_without_another_view_change_nothing(
    task: TaskView,
    whole_batch: Any,
) -> None:
    """One patch a class, of different images: no patch has another view, and (7) is constant."""
    config, hyper = cc.Config(anchors="corpus", k=1), cc.Hyper()
    params, fixed = moved(task, config)
    fixed["image"] = torch.arange(4)[:, None]
    batch = replace(batch_of(task, whole_batch), beside={"pool": torch.arange(4)})
    state = cc.start(params, fixed, config, hyper)
    values = [
        cc.loss(params, fixed, state, batch, config, replace(hyper, lam_image=lam))[0]
        for lam in (0.0, 2.0)
    ]
    assert float(values[1] - values[0]) == pytest.approx(2.0)


def test_all_patches_cannot_be_kept_of_a_corpus(task: TaskView) -> None:
    with pytest.raises(UsageError, match="shrink=false keeps every patch"):
        cc.prepare(task, cc.Config(anchors="corpus", shrink=False), cc.Hyper())


def unread(view: TaskView) -> set[str]:
    kinds = view.support.kinds.items()
    return {str(kind) for kind, values in kinds if not isinstance(values, Tensor)}


def test_patches_of_the_support_are_read_when_they_are_searched() -> None:
    world = rich_world()
    config = cc.Config(anchors="corpus")
    eager = make_task(world, cc.METHOD, cc.Config()).view
    lazy = make_task(world, cc.METHOD, config).view
    assert unread(eager) == set()
    assert unread(lazy) == {"patches", "view_patches.cdfsl"}
    (_, a), (_, b) = (cc.prepare(view, config, cc.Hyper()) for view in (eager, lazy))
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_no_step_of_training_reads_a_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_task(rich_world(), cc.METHOD, config := cc.Config(anchors="corpus", steps=3)).view
    ready = cc.prepare(view, config, cc.Hyper())

    def refuse(self: Any, component: str, rows: Any) -> Tensor:
        raise AssertionError(component)

    monkeypatch.setattr(FeatureSet, "unit", refuse)
    method = replace(cc.METHOD, prepare=lambda *_: ready, config=cc.Config, hyper=cc.Hyper)
    assert len(list(train(method, config, [view], [cc.Hyper()]))) == 1


def test_the_pool_joins_the_corpus_and_its_labels_stay_out_of_reach() -> None:
    world = rich_world()
    config = replace(PLAIN, anchors="corpus-with-pool", k=8)
    view = make_task(world, cc.METHOD, config).view
    assert view.pool is not None
    assert view.pool.labels is None
    _, fixed = cc.prepare(view, config, cc.Hyper())
    first = len(view.support)
    assert bool((fixed["image"] >= first).any())
    assert bool((fixed["image"] < first).any())
    labels = [*view.support.y.tolist(), *[-1] * len(view.pool)]
    assert fixed["owner"].tolist() == [
        [labels[i] for i in found] for found in fixed["image"].tolist()
    ]
    expected = naive_corpus(view, 8, pool=True)
    assert [row[:3] for row in got(fixed)] == sorted(row[:3] for row in expected)


World = Callable[..., FeatureSet]
QUICK: dict[str, Any] = {"anchors": "corpus-with-pool", "steps": 4}


def run(world: World, **more: Any) -> Result:
    made = world(views=0, also=ALSO, descriptions=True)
    return training.run("cc-cdfsl", features=made, **{"settings": QUICK, "shots": 2, **more})


def test_few_shot_gives_the_images_of_train_that_were_not_drawn(world: World) -> None:
    result = run(world, seeds=[1])
    assert any("50 images of train that are no shots were read" in note for note in result.notes)
    assert {"pool", "pool patches"} <= set(result.reads)
    alone = run(world, seeds=[1], settings={**QUICK, "anchors": "corpus"})
    assert not any(what.startswith("pool") for what in alone.reads)


def test_unlabelled_images_of_train_are_the_pool_where_all_others_are_shots(world: World) -> None:
    made = world(views=0, also=ALSO, descriptions=True)
    labels = made.labels.copy()
    rows = made.usable("train")
    hidden = np.concatenate([rows[labels[rows] == c][-4:] for c in range(5)])
    labels[hidden] = -1
    hiding = replace(made, listing=replace(made.listing, labels=labels))
    result = training.run("cc-cdfsl", features=hiding, shots=8, seeds=[1], settings=QUICK)
    assert any("20 images of train that are no shots" in note for note in result.notes)


def test_without_an_undrawn_image_there_is_no_pool(world: World) -> None:
    with pytest.raises(TaskError, match=r"Every image of split 'train' .* is a shot"):
        run(world, shots=None)


def test_an_episode_has_no_pool(world: World) -> None:
    made = world(views=0, also=ALSO, descriptions=True)
    with pytest.raises(UsageError, match="learns from an unlabelled pool"):
        episodic.run("cc-cdfsl", features=made, shots=2, episodes=2, queries=3, settings=QUICK)


def test_episodes_read_their_corpus_lazily(world: World) -> None:
    made = world(views=0, also=ALSO, descriptions=True)
    quick = {"anchors": "corpus", "steps": 4}
    given: dict[str, Any] = {"shots": 2, "episodes": 3, "queries": 3, "ways": 3}
    one, other = (
        episodic.run("cc-cdfsl", features=made, settings=quick, **given).predictions
        for _ in range(2)
    )
    assert one is not None
    assert other is not None
    assert np.array_equal(one.predicted, other.predicted)
