"""Specs: equal ones have equal digests, and nothing else has."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from featcache.types import FeatureSet
from heads.protocols import training
from heads.protocols.plan import Request
from heads.protocols.sweep import FAILURES, sweep
from heads.results import store
from heads.spec import FitSpec, RunSpec

FIT = FitSpec(
    method="cmm", key="k", dataset="pets", protocol="few_shot", selection="none", classes="c"
)
CHANGES: dict[str, Any] = {
    "method": "ridge", "key": "l", "dataset": "cars", "protocol": "zero_shot", "selection": "cv",
    "learns_from": "d", "classes": "e", "version": 2, "settings": (("lr", "1"),), "texts": "t",
    "reads": ("support views.rrc50-10",), "shots": None, "seeds": (1,), "extra": (("a", "b"),),
    "augment": "corpus:wild@0123456789ab",
}  # fmt: skip


def test_every_field_counts() -> None:
    assert set(CHANGES) == {f.name for f in fields(FitSpec)}
    digests = {replace(FIT, **{name: value}).digest() for name, value in CHANGES.items()}
    assert len(digests | {FIT.digest()}) == len(CHANGES) + 1
    run = RunSpec(fit=FIT, split="test", queries="q")
    others = {"split": "val", "queries": "r", "task_version": 2, "metric": "f1"}
    runs = {replace(run, **{name: value}).digest() for name, value in others.items()}  # type: ignore[arg-type]
    assert len(runs | {run.digest()}) == len(others) + 1


def test_a_field_at_its_default_is_left_out() -> None:
    assert FIT.digest() == "f53e1b8da38bff23"  # as the first version of this program had it
    assert set(FIT.as_dict()) == {
        "method", "key", "dataset", "protocol", "selection", "classes",
    }  # fmt: skip


def plan_spec(features: FeatureSet, **wanted: Any) -> RunSpec:
    wanted = dict({"method": "ridge", "shots": 4, "seeds": (1, 2)}, **wanted)
    return training.plan(Request(features=features, **wanted)).spec("test")


def test_what_a_spec_depends_on(world: Callable[..., FeatureSet]) -> None:
    features, other = world(), world(seed=1)
    base = plan_spec(features).digest()
    assert plan_spec(world()).digest() == base
    assert plan_spec(features, settings={"lam": 2.0}).digest() != base
    assert plan_spec(features, shots=2).digest() != base
    assert plan_spec(features, seeds=(1, 3)).digest() != base
    assert plan_spec(features, class_weights="balanced").digest() != base
    swapped = features.labels.copy()
    swapped[[0, 12]] = swapped[[12, 0]]
    relabelled = replace(features, listing=replace(features.listing, labels=swapped))
    assert plan_spec(relabelled, shots=None).digest() != plan_spec(features, shots=None).digest()
    assert plan_spec(other).fit.learns_from == plan_spec(features).fit.learns_from  # the same ids


def test_a_query_set_is_no_part_of_a_fit_unless_it_is_seen(
    world: Callable[..., FeatureSet],
) -> None:
    features = world(counts={"train": 6, "val": 4, "test": 4, "sketch": 4})

    def fits(method: str, **wanted: Any) -> set[str]:
        request = Request(
            method=method, features=features, shots=2, splits=("test", "sketch"), **wanted
        )
        plan = training.plan(request)
        return {plan.fit_spec(split).digest() for split in plan.splits}

    assert len(fits("ridge")) == 1
    assert len(fits("ridge", selection="oracle")) == 2
    assert len(fits("transclip")) == 2


@pytest.fixture
def request_(world: Callable[..., FeatureSet]) -> Request:
    return Request(method="ridge", features=world(), shots=2, seeds=(1,), selection="none")


def test_a_sweep_skips_what_is_there_and_records_what_fails(
    request_: Request, tmp_path: Path
) -> None:
    bad_setting = replace(request_, settings={"lam": "many"})
    no_crops = replace(request_, method="lazsl")
    two_splits = replace(request_, method="nearest-mean", splits=("test", "nowhere"))
    other = replace(request_, method="nearest-mean")
    wanted = [request_, bad_setting, no_crops, two_splits, other]
    first = sweep(wanted, root=tmp_path)
    assert [entry.result is not None for entry in first] == [True, False, False, False, True]
    assert not any(entry.was_there for entry in first)
    (file,) = (tmp_path / FAILURES).glob("*.json")  # of the only one that had a spec
    assert first[2].spec is not None
    assert file.stem == first[2].spec.digest()
    second = sweep(wanted, root=tmp_path)
    assert [entry.error for entry in second] == [entry.error for entry in first]
    assert [entry.was_there for entry in second] == [entry.result is not None for entry in second]
    assert len(list(store.run_folders(tmp_path))) == 2
    third = sweep([request_], root=tmp_path, again=True)
    assert not third[0].was_there
