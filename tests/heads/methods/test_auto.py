"""Auto: all training images, members that can be trained here, weights from validation alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import heads
from featcache.errors import TrainingError, UsageError
from featcache.types import FeatureSet
from heads import registry
from heads.api import fit
from heads.episode import Episode
from heads.head_file import pack, unpack
from heads.member_pool import members
from heads.methods import auto
from heads.methods.auto import METHOD
from heads.ops.pooling import greedy_weights, temperature
from heads.protocols import training
from heads.protocols.plan import Request
from heads.selection.chosen import Chosen
from heads.selection.folds import folds
from heads.selection.select import select
from heads.selection.settings import configure
from heads.training.trainer import train
from tests.heads.conftest import make_world
from tests.heads.toy_tasks import make_task

FEW = "ridge,gda,tip-adapter"


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return make_world(counts={"train": 6, "val": 4, "test": 5}, noise=0.6)


@pytest.fixture(scope="module")
def task(features: FeatureSet) -> Episode:
    return make_task(features, METHOD)


def chosen(task: Episode, mode: str = "few-shot-val", of: str = FEW) -> Chosen:
    settings = configure(METHOD, {"members": of}, shots=6)
    return select(METHOD, settings, [task], mode)[0]


def weights(found: Chosen) -> dict[str, float]:
    start = "weight of "
    return {n.removeprefix(start): w for n, w in found.values.items() if n.startswith(start)}


def test_it_trains_on_all_images_where_nobody_says_how_many(features: FeatureSet) -> None:
    request = Request(method="auto", features=features)
    assert training.plan(request).run.shots is None
    assert training.plan(replace(request, shots=2)).run.shots == 2
    assert training.plan(replace(request, method="ridge")).run.shots == 16
    head = fit("auto", features, members="ridge,gda", selection="none")
    assert head.about["shots"] == "all"


def test_weights_are_those_of_greedy_pooling_on_validation(task: Episode) -> None:
    assert task.val is not None
    alone = []
    for name in FEW.split(","):
        method = registry.get(name)
        (one,) = select(method, configure(method, shots=6), [task], "few-shot-val")
        z = one.head.logits(task.val)
        alone.append(torch.log_softmax(z / temperature(z, task.val.y), dim=-1))
    expected = greedy_weights(torch.stack(alone), task.val.y, METHOD.config().rounds)
    assert list(weights(chosen(task)).values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_under_folds_members_are_trained_again_on_all_images(task: Episode) -> None:
    """The weights are those of answers to held-out rows; the head holds every training row."""
    found = chosen(replace(task, val=None), "cv", of="knn:k=3,nearest-mean")
    views, held_out = folds(task.view)
    labels = torch.cat([rows.y for rows in held_out])
    log_p = []
    for name, given in (("knn", {"k": "3"}), ("nearest-mean", {})):
        method = registry.get(name)
        own = configure(method, given, shots=6)
        hyper = replace(
            own.hyper, **{f: found.values[f"{name}.{f}"] for f in own.hyper.__dataclass_fields__}
        )
        runs = sorted(train(method, own.config, views, [hyper]), key=lambda run: run.task)
        z = torch.cat([run.head.logits(held_out[run.task]) for run in runs])
        log_p.append(torch.log_softmax(z / temperature(z, labels), dim=-1))
    expected = greedy_weights(torch.stack(log_p), labels, METHOD.config().rounds)
    assert list(weights(found).values()) == pytest.approx(expected.tolist(), abs=1e-6)
    rows = [len(t) for name, t in found.head.fixed.items() if name.startswith("knn/fixed/")]
    if weights(found)["knn"] > 0:
        assert len(task.view.support) in rows


def test_without_validation_all_weigh_alike_and_it_is_said(task: Episode) -> None:
    found = chosen(replace(task, val=None), "none")
    assert set(weights(found).values()) == {1 / 3}
    assert any("all weigh alike" in note for note in found.notes)


def test_one_shot_without_validation_images_takes_the_defaults() -> None:
    bare = make_world(counts={"train": 1, "test": 5})
    request = Request(method="auto", features=bare, settings={"members": FEW})
    result = training.train("auto", features=bare, shots=1, settings={"members": FEW}).result
    assert training.plan(request).run.selection == "none"
    assert any("default hyper-parameters were taken" in note for note in result.notes)
    assert any("all weigh alike" in note for note in result.notes)


def test_without_texts_members_that_need_them_are_left_out() -> None:
    plain = make_world(counts={"train": 6, "val": 4, "test": 5}, text=False)
    result = training.train("auto", features=plain).result
    (told,) = [note for note in result.notes if note.startswith("Left out")]
    names = {one.name for one in members(METHOD.config())}
    without = {name for name in names if f"weight of {name}" not in result.chosen[0]}
    assert without
    assert all(name in told for name in without)
    assert "class texts" in told
    assert "gda" in names - without


def test_members_are_left_out_above_their_number_of_images(
    task: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "MOST_ROWS", {"gda": len(task.view.support)})
    assert set(weights(chosen(task))) == {"ridge", "gda", "tip-adapter"}
    monkeypatch.setattr(auto, "MOST_ROWS", {"gda": len(task.view.support) - 1})
    found = chosen(task)
    assert set(weights(found)) == {"ridge", "tip-adapter"}
    assert any(note.startswith("Left out: gda (slow on more than 29") for note in found.notes)


def test_a_member_that_fails_costs_the_others_nothing(
    task: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise TrainingError("the matrix is singular.")

    get = registry.get
    bad = replace(get("gda"), prepare=broken)
    monkeypatch.setattr(registry, "get", lambda name: bad if name == "gda" else get(name))
    found = chosen(task)
    assert set(weights(found)) == {"ridge", "tip-adapter"}
    assert "Left out: gda (the matrix is singular)." in found.notes
    with pytest.raises(UsageError, match="auto has no member that can be trained here"):
        chosen(task, of="gda")
    ensemble = registry.get("ensemble")
    with pytest.raises(TrainingError, match="singular"):
        select(ensemble, configure(ensemble, {"members": FEW}), [task], "few-shot-val")


def test_the_record_names_weights_and_seconds_of_every_member(features: FeatureSet) -> None:
    made = training.train("auto", features=features, settings={"members": FEW})
    result = made.result
    assert {f"fit of {name}" for name in FEW.split(",")} < set(result.seconds)
    own = [s for name, s in result.seconds.items() if name.startswith("fit of")]
    assert 0 < sum(own) <= result.seconds["fit"]
    found = [w for name, w in result.chosen[0].items() if name.startswith("weight of")]
    assert sum(found) == pytest.approx(1)
    assert any(note.startswith("Weights of the members: ") for note in result.notes)
    ((head,),) = made.heads
    rows = torch.as_tensor(features.unit("global", features.usable("test")))
    assert torch.equal(unpack(pack(head), "It").logits(rows), head.logits(rows))


def test_queries_change_nothing(features: FeatureSet) -> None:
    """Other labels of the queries give the same head."""
    test = features.usable("test")
    labels = features.labels.copy()
    labels[test] = labels[test][::-1]
    other = replace(features, listing=replace(features.listing, labels=labels))
    found = [
        training.train("auto", features=one, settings={"members": FEW}).heads[0][0].fitted.fixed
        for one in (features, other)
    ]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_default_members_are_members_of_this_version() -> None:
    names = [one.name for one in members(METHOD.config())]
    assert set(auto.MOST_ROWS) <= set(names)
    assert heads.Estimator("auto", members="ridge,nearest-mean").fit(
        [[0.1, 1.0], [0.2, 1.0], [1.0, 0.1], [1.0, 0.0]], ["a", "a", "b", "b"]
    ).predict([[0.0, 3.0], [2.0, 0.0]]).tolist() == ["a", "b"]
