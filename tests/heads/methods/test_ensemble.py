"""The ensemble: its members are those trained alone, and its answers their pooled probabilities."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import FeatcacheError, HeadError, TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads import registry
from heads.contract.settings import Grid
from heads.episode import Episode
from heads.fitted import Fitted
from heads.head import Head
from heads.head_file import pack, unpack
from heads.methods.ensemble import METHOD, members
from heads.ops.pooling import greedy_weights, temperature
from heads.protocols import training
from heads.protocols.plan import Request
from heads.selection.chosen import Chosen
from heads.selection.folds import folds
from heads.selection.select import has_choice, select
from heads.selection.settings import configure
from tests.heads.toy_tasks import make_task, rich_world

NAMES = "gda,knn:k=3,ridge"


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return rich_world()


@pytest.fixture(scope="module")
def task(features: FeatureSet) -> Episode:
    return make_task(features, METHOD, METHOD.config(members=NAMES))


def chosen(task: Episode, mode: str = "few-shot-val", **given: Any) -> Chosen:
    settings = configure(METHOD, {"members": NAMES, **given}, shots=6)
    return select(METHOD, settings, [task], mode)[0]


def alone(task: Episode, text: str, mode: str = "few-shot-val") -> Fitted:
    name, _, given = text.partition(":")
    method = registry.get(name)
    settings = configure(method, dict([given.split("=")] if given else []), shots=6)
    used = mode if has_choice(method, settings, mode) else "none"
    (one,) = select(method, settings, [task], used)
    return one.head


def pooled(heads: list[Fitted], task: Episode, rule: str) -> Tensor:
    """Return the logits of (1) or (2), slowly and in float64."""
    assert task.val is not None
    heats = [temperature(head.logits(task.val), task.val.y) for head in heads]

    def answered(rows: Any) -> Tensor:
        both = zip(heads, heats, strict=True)
        return torch.stack([(h.logits(rows).double() / t).softmax(-1) for h, t in both])

    p = answered(task.query)
    if rule == "log":
        product = p.prod(dim=0) ** (1 / len(p))
        return (product / product.sum(-1, keepdim=True)).log()
    weights = torch.full((len(p),), 1 / len(p), dtype=torch.float64)
    if rule == "greedy":
        weights = greedy_weights(answered(task.val).log(), task.val.y, 50)
    return torch.einsum("m,mnc->nc", weights, p).log()


@pytest.mark.parametrize("rule", ["mean", "log", "greedy"])
def test_answers_are_pooled_from_members_trained_alone(task: Episode, rule: str) -> None:
    heads = [alone(task, text) for text in NAMES.split(",")]
    found = chosen(task, rule=rule)
    expected = pooled(heads, task, rule)
    torch.testing.assert_close(
        found.head.logits(task.query).double(), expected, rtol=1e-3, atol=1e-3
    )


def test_the_record_names_members_weights_temperatures_and_values(task: Episode) -> None:
    found = chosen(task, rule="greedy")
    labels = ("gda", "knn", "ridge")
    assert sum(found.values[f"weight of {label}"] for label in labels) == pytest.approx(1)
    assert all(found.values[f"temperature of {label}"] > 0 for label in labels)
    assert {"gda.alpha"} <= set(found.values)
    kept = [label for label in labels if found.values[f"weight of {label}"] > 0]
    assert [one.label for one in members(found.head.config)] == kept


def test_folds_answer_rows_that_their_members_were_not_trained_on(task: Episode) -> None:
    """The temperature of the only member is that of logits pooled over the folds."""
    (found,) = select(METHOD, configure(METHOD, {"members": "gda:alpha=1"}), [task], "cv")
    views, held_out = folds(task.view)
    gda = registry.get("gda")
    logits = []
    for view, rows in zip(views, held_out, strict=True):
        params, fixed = gda.prepare(view, gda.config(), gda.hyper(alpha=1.0))
        head = Fitted(
            method=gda, config=gda.config(), hyper=gda.hyper(alpha=1.0), params=params, fixed=fixed
        )
        logits.append(head.logits(rows))
    expected = temperature(torch.cat(logits), torch.cat([rows.y for rows in held_out]))
    assert found.values["temperature of gda"] == pytest.approx(expected, rel=1e-3)


def test_without_validation_temperatures_are_one_and_it_is_said(task: Episode) -> None:
    found = chosen(task, "none")
    assert found.values["temperature of gda"] == 1
    assert "not calibrated" in found.notes[0]
    plain = chosen(task, calibrate=False)
    assert plain.values["temperature of gda"] == 1
    assert plain.notes == ()
    with pytest.raises(UsageError, match="rule greedy chooses weights on validation"):
        chosen(task, "none", rule="greedy")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("gda,gdb", UnknownNameError, "Unknown method 'gdb'; did you mean 'gda'"),
        ("gda,knn:kk=3", UnknownNameError, "kk"),
        ("gda,knn:k=none", UsageError, "setting k must be a number"),
        ("gda,,knn", UsageError, "names of methods"),
        ("gda,knn:k", UsageError, "settings after colons"),
        ("knn:k=1:k=2", UsageError, "one value for a setting"),
        ("gda,gda", UsageError, "members that differ"),
        ("gda,ensemble", UsageError, "no ensembles themselves"),
        ("gda,transclip", UsageError, "answers all together"),
        (",".join(f"knn:k={k}" for k in range(1, 67)), UsageError, "1 to 64 members"),
    ],
)
def test_wrong_members_are_refused_before_training(
    features: FeatureSet, text: str, error: type[FeatcacheError], said: str
) -> None:
    request = Request(method="ensemble", features=features, shots=4, settings={"members": text})
    with pytest.raises(error, match=said):
        training.plan(request)


def test_one_method_may_come_twice_with_other_settings(task: Episode) -> None:
    settings = configure(METHOD, {"members": "knn:k=1,knn:k=3"})
    (found,) = select(METHOD, settings, [task], "few-shot-val")
    assert {"weight of knn", "weight of knn.2"} <= set(found.values)


def test_a_kept_head_has_its_members_and_answers_the_same(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = training.train(
        "ensemble",
        features=features,
        shots=4,
        seeds=(1,),
        settings={"members": "gda,tip-adapter", "rule": "log"},
    )
    ((head,),) = made.heads
    assert "weight of gda" in made.result.chosen[0]
    assert [one.name for one in head.members] == ["gda", "tip-adapter"]
    assert any(name.startswith("tip-adapter/") for name in head.holds)
    data = pack(head)
    again = unpack(data, "It")
    x = features.unit("global", features.usable("test"))
    rows = torch.as_tensor(x)
    assert torch.equal(again.logits(rows), head.logits(rows))
    pooled = replace(head, temperature=1.0).probabilities(rows)
    torch.testing.assert_close(pooled, head.logits(rows).exp())
    gda = registry.get("gda")
    newer = replace(gda, version=gda.version + 1)
    before = registry.get
    monkeypatch.setattr(registry, "get", lambda name: newer if name == "gda" else before(name))
    with pytest.raises(HeadError, match=f"version {gda.version} of its member gda"):
        unpack(data, "It")


def test_a_newer_member_makes_another_run(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(method="ensemble", features=features, shots=4, seeds=(1,))
    before = training.plan(request).fit_spec("test").digest()
    assert training.plan(request).fit_spec("test").digest() == before
    gda, get = registry.get("gda"), registry.get
    newer = replace(gda, version=gda.version + 1)
    monkeypatch.setattr(registry, "get", lambda name: newer if name == "gda" else get(name))
    assert training.plan(request).fit_spec("test").digest() != before


def test_a_member_sees_only_what_it_reads_alone(features: FeatureSet) -> None:
    """Kinds that other members need would change the answers of one that takes any views."""
    needed = METHOD.config(members="gda,cc-cdfsl")
    task = make_task(features, METHOD, needed)
    settings = configure(METHOD, {"members": "gda,ridge"})
    wide = select(METHOD, settings, [task], "none")[0].head.logits(task.query)
    small = make_task(features, METHOD, settings.config)
    alone = select(METHOD, settings, [small], "none")[0].head.logits(small.query)
    assert len(task.view.support.kinds) > len(small.view.support.kinds)
    assert torch.equal(wide, alone)


def test_it_cannot_take_other_classes(task: Episode) -> None:
    head = Head(fitted=chosen(task).head, classes=task.view.classes)
    assert task.view.text is not None
    with pytest.raises(HeadError, match="specific to its"):
        head.rebind(task.view.text, task.view.classes)


def test_whole_numbers_that_a_member_searched_are_kept(
    task: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member's grid over a field of its Config becomes a setting of the member."""
    get = registry.get
    searched = replace(get("proker"), train_grid=Grid({"points": [8.0, 16.0]}))
    monkeypatch.setattr(registry, "get", lambda name: searched if name == "proker" else get(name))
    settings = configure(METHOD, {"members": "proker,ridge"})
    (found,) = select(METHOD, settings, [task], "few-shot-val")
    points = found.values["proker.points"]
    assert points in (8, 16)
    assert found.head.config.members == f"proker:points={points:g},ridge"
    (part,) = [m for m in members(found.head.config) if m.name == "proker"]
    assert dict(part.settings) == {"points": f"{points:g}"}


def test_folds_need_two_images_of_a_class(task: Episode) -> None:
    one = replace(task, view=replace(task.view, support=task.view.support.take(slice(0, 1))))
    with pytest.raises(TaskError, match="two or more training images"):
        chosen(one, "cv")
