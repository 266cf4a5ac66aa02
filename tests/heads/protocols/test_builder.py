"""Tasks: roles are disjoint, bad rows refused, short classes named, missing parts priced."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CacheError, MissingComponentError, TaskError
from featcache.store.again import command
from featcache.types import FeatureSet
from featcache.wording import Call
from heads.contract.method import Need
from heads.contract.rows import Kind
from heads.episode import Episode
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.suggest import support_scope
from heads.reading import MappedRows

World = Callable[..., FeatureSet]
CPU = torch.device("cpu")
GLOBAL = frozenset({Need(role="query"), Need(role="support")})


def builder(features: FeatureSet, needs: frozenset[Need] = GLOBAL, **more: Any) -> EpisodeBuilder:
    rows = features.usable("test")
    return EpisodeBuilder(features=features, needs=needs, device=CPU, splits={"test": rows}, **more)


def build(made: EpisodeBuilder, **more: Any) -> Episode:
    features = made.features
    none = np.zeros(0, dtype=np.int64)
    arguments = {
        "support": features.usable("train"),
        "val": features.usable("val") if "val" in features.listing.splits else none,
        "seed": 1,
        "shots": 12,
    }
    return made.build(**(arguments | more))


def test_a_method_sees_unit_rows_and_their_lengths(world: World) -> None:
    features = world()
    task = build(builder(features))
    x = task.view.support.x
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(len(x)))
    raw = features.rows("global", task.support_index).float()
    torch.testing.assert_close(x * task.view.support.norms[:, None], raw)
    assert task.view.support.labels is not None
    assert task.view.support.labels.tolist() == features.labels[task.support_index].tolist()
    assert not hasattr(task.view, "query")
    assert not hasattr(task.view, "val")


def test_imported_unit_rows_have_length_one(world: World) -> None:
    features = world()
    features = replace(features, key=replace(features.key, norms="unit"))
    assert build(builder(features)).view.support.norms.tolist() == [1.0] * 60


def test_overlapping_roles_are_refused(world: World) -> None:
    features = world()
    made = builder(features)
    with pytest.raises(TaskError, match=r"in both support and query; evaluate another split\.$"):
        build(made, support=features.usable("test"))
    with pytest.raises(
        TaskError, match=r"in both query and validation.*selection='cv' or selection='none'"
    ):
        build(made, val=features.usable("test")[:3])
    assert build(made, oracle=True).val is made.queries["test"].rows


def test_the_same_photograph_in_support_and_query_is_said(world: World) -> None:
    features = world()
    hashes = list(features.listing.hashes)
    hashes[int(features.usable("test")[0])] = hashes[0]
    features = replace(features, listing=replace(features.listing, hashes=hashes))
    assert "Seed 1: 1 query image is byte for byte" in " ".join(
        build(builder(features)).queries["test"].notes
    )


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_bad_rows_are_refused_by_name(world: World, bad: float) -> None:
    features = world()
    features.components["global"].values[3] = bad  # type: ignore[attr-defined]
    with pytest.raises(CacheError, match=r"row 3, 00003\.jpg"):
        build(builder(features))


def test_short_classes_are_named_or_refused(world: World) -> None:
    features = world(classes=3, counts={"train": (4, 2, 0), "test": 3})
    notes = build(builder(features), shots=4).notes
    assert notes == (
        "2 of 3 classes have fewer than 4 training images and gave all they have: "
        "class 1 2, class 2 0.",
    )
    with pytest.raises(TaskError, match=r"class 2 0\). Lower shots, or drop strict_shots"):
        build(builder(features, strict_shots=True), shots=4)


def test_one_class_cannot_be_trained(world: World) -> None:
    with pytest.raises(TaskError, match="a classifier needs two or more"):
        builder(world(classes=1))
    features = world(classes=3, counts={"train": (4, 0, 0), "test": 3})
    with pytest.raises(TaskError, match="training images of 1 class"):
        build(builder(features))


def test_unlabelled_queries_are_left_out_and_said(world: World) -> None:
    features = world()
    features.labels[features.usable("test")[:2]] = -1
    task = build(builder(features))
    assert len(task.query.x) == 48
    assert task.queries["test"].notes == ("2 query images without a label were left out.",)


def test_a_split_without_labels_is_refused(world: World) -> None:
    features = world()
    features.labels[features.usable("test")] = -1
    with pytest.raises(TaskError, match="no labelled query image"):
        build(builder(features))


def test_views_are_used_where_they_cover_the_support(world: World) -> None:
    need = Need(role="support", kind="views", recipe="rrc50", optional=True)
    features = world(views=3)
    task = build(builder(features, GLOBAL | {need}))
    views = task.view.support.get("views")
    assert views is not None
    assert views.shape == (60, 3, 16)
    torch.testing.assert_close(views.norm(dim=-1), torch.ones(60, 3))
    features.components["views.rrc50-3"].covered[2] = False  # type: ignore[attr-defined]
    task = build(builder(features, GLOBAL | {need}))
    assert task.view.support.get("views") is None
    (note,) = task.notes
    assert note.startswith("Trained without views: they are not cached for every support image.")
    assert "--views 10" in note


@pytest.mark.parametrize(
    ("need", "value"),
    [
        (Need(role="support", kind="views", recipe="rrc50", at_least=10), "10"),
        (Need(role="query", kind="crops", recipe="lazsl", at_least=60), "60"),
        (Need(role="query", kind="crops", recipe="fair", at_least=16), "16:fair@query"),
        (Need(role="query", kind="patches"), "clearclip"),
        (Need(role="support", kind="view_patches", recipe="cdfsl"), "4"),
        (
            Need(role="support", kind="view_patches", recipe="cdfsl", variant="vanilla"),
            "4:vanilla",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_lacks_comes_with_the_call_that_adds_it(world: World, need: Need, value: str) -> None:
    with pytest.raises(MissingComponentError) as caught:
        build(builder(world(), GLOBAL | {need}))
    wanted = {"dataset": "toy", "backbone": "tiny", need.kind: [value]}
    assert caught.value.suggestion == Call("featcache.extract", wanted)
    assert str(caught.value).endswith(
        f"Add it with: featcache.extract(dataset='toy', backbone='tiny', {need.kind}=['{value}'])"
    )


def test_patches_of_views_are_those_of_the_variant(world: World) -> None:
    names = [f"view_patches.{variant}.cdfsl-4" for variant in ("clearclip", "vanilla")]
    features = world(also=dict.fromkeys(names, (4, 3)))
    read = {}
    for variant in (None, "clearclip", "vanilla"):
        need = Need(role="support", kind="view_patches", recipe="cdfsl", variant=variant)
        rows = build(builder(features, GLOBAL | {need})).view.support
        read[variant] = rows.get("view_patches", "cdfsl")
    found = [need.fitting(features) for need in (replace(need, variant=None), need)]
    assert found == [names, names[1:]]
    one, clear, vanilla = read.values()
    assert one is not None
    assert clear is not None
    assert vanilla is not None
    assert torch.equal(one, clear)
    assert not torch.equal(one, vanilla)


def test_one_call_adds_all_that_is_absent(world: World, tmp_path: Path) -> None:
    views = Need(role="support", kind="views", recipe="rrc50", at_least=10)
    crops = Need(role="pool", kind="crops", recipe="fair")
    features = replace(world(), path=tmp_path / "a b" / "toy" / "tiny-0")
    scopes = {"support": support_scope(6, [1, 2, 5])}
    made = builder(features, GLOBAL | {views, crops}, scopes=scopes)
    with pytest.raises(MissingComponentError) as caught:
        build(made)
    call = caught.value.suggestion
    assert call is not None
    assert dict(call.arguments) == {
        "dataset": "toy",
        "backbone": "tiny",
        "root": f"{tmp_path}/a b",
        "crops": ["16:fair"],
        "views": ["10@few-shot(6,seeds=1-5)"],
    }
    told = f"--cache '{tmp_path}/a b' --crops 16:fair --views '10@few-shot(6,seeds=1-5)'"
    assert command(call).endswith(told)  # as in the notes of a record


def test_one_call_adds_all_that_these_rows_lack(world: World) -> None:
    features = world(also={"views.cdfsl-4": (4,), "view_patches.clearclip.cdfsl-4": (4, 3)})
    for reader in features.components.values():
        if len(reader.shape) > 1:
            reader.covered[:10] = False  # type: ignore[attr-defined]
    needs = {Need(role="support", kind=k, recipe="cdfsl") for k in ("views", "view_patches")}
    with pytest.raises(
        MissingComponentError, match=r"view_patches=\['4'\], views=\['4:cdfsl'\]\)$"
    ):
        build(builder(features, GLOBAL | needs))


@pytest.mark.parametrize(
    ("shots", "seeds", "rows"),
    [
        (16, [1, 2, 3], "few-shot"),
        (4, [2], "few-shot"),
        (3, [1], "few-shot(3,seeds=1)"),
        (32, [1, 2, 3], "few-shot(32,seeds=1-3)"),
        (16, [1, 4], "few-shot(16,seeds=1-4)"),
        (None, [1], "train"),
    ],
)
def test_support_rows_have_a_name(shots: int | None, seeds: list[int], rows: str) -> None:
    assert str(support_scope(shots, seeds)) == rows


def test_imported_features_cannot_be_extended(world: World) -> None:
    need = Need(role="support", kind="views", recipe="rrc50", at_least=10)
    with pytest.raises(MissingComponentError, match="imported without images"):
        build(builder(world(image_size=0), GLOBAL | {need}))


def test_the_pool_has_no_labels_and_gathers_lazily(world: World) -> None:
    need = Need(role="pool", kind="views", recipe="rrc50")
    features = world(views=3)
    made = builder(features, frozenset({*GLOBAL, need}))
    pool = build(made, pool=features.usable("val"), val=np.zeros(0, dtype=np.int64)).view.pool
    assert pool is not None
    assert pool.labels is None
    lazy = pool.kinds[Kind("views", "rrc50")]
    assert isinstance(lazy, MappedRows)
    whole = features.unit("views.rrc50-3", features.usable("val"))
    index = torch.tensor([4, 0, 4])
    torch.testing.assert_close(lazy.gather(index), whole[index])
    some = torch.tensor([[2, 0], [1, 1], [0, 2]])
    torch.testing.assert_close(lazy.gather(index, some), whole[index[:, None], some])
    torch.testing.assert_close(pool.take(slice(1, 3)).get("views"), whole[1:3])


def test_class_weights_have_mean_one(world: World) -> None:
    features = world(classes=2, counts={"train": (6, 2), "test": 3})
    weights = build(builder(features, class_weights="balanced")).view.support.weights
    assert weights is not None
    assert float(weights.mean()) == pytest.approx(1)
    torch.testing.assert_close(weights[-1] / weights[0], torch.tensor(3.0))
    assert float(weights[:6].sum()) == pytest.approx(float(weights[6:].sum()))
    weights = build(builder(features, class_weights=[1.0, 5.0])).view.support.weights
    assert weights is not None
    assert float(weights[-1] / weights[0]) == pytest.approx(5)
    with pytest.raises(TaskError, match="2 numbers above 0"):
        build(builder(features, class_weights=[1.0]))
    with pytest.raises(TaskError, match="'balanced' or numbers, got 'equal'"):
        build(builder(features, class_weights="equal"))


def test_what_lacks_beside_texts_is_added_with_them(world: World) -> None:
    need = Need(role="query", kind="crops", recipe="lazsl", at_least=60)
    with pytest.raises(MissingComponentError, match="and texts of kind 'cupl'") as caught:
        build(builder(world(), GLOBAL | {need}, text="cupl"))
    assert "for every class. Add them with: featcache.extract(" in str(caught.value)
