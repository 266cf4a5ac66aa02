from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.encoding.components import component_specs, merge_counts
from featcache.errors import TaskError, UnknownNameError
from featcache.keys import ComponentKey, Listing
from featcache.pipeline.blocks import encoded_rows
from featcache.pipeline.plan import (
    Plan,
    make_plan,
    scope_rows,
    stratified,
)
from featcache.pipeline.summary import listed
from featcache.recipes import FEW_SHOT, Scope


def listing(splits: Mapping[str, list[int]], labels: list[int]) -> Listing:
    n = len(labels)
    return Listing(
        dataset="zoo",
        root="/zoo",
        classes=tuple(f"class {i}" for i in range(max(labels) + 1)),
        ids=[f"{i}.jpg" for i in range(n)],
        hashes=[f"{i:064x}" for i in range(n)],
        labels=np.array(labels),
        splits={name: np.array(rows) for name, rows in splits.items()},
    )


ZOO = listing(
    {"train": list(range(60)), "val": [60, 61], "test": [62, 63, 64], "sketch": [65]},
    [i % 2 for i in range(67)],
)


def plan_of(backbone: Any, covered: Mapping[str, list[int]], **more: Any) -> Plan:
    def have(component: str) -> Any:
        mask = np.zeros(len(ZOO), dtype=bool)
        mask[covered.get(component, [])] = True
        return mask

    specs, _ = component_specs(backbone, views=["2"])
    return make_plan(ZOO, backbone, specs, covered=have, micro_batch=8, **more)


def test_a_plan_holds_what_is_missing(backbone: Any) -> None:
    plan = plan_of(backbone, {"global": list(range(66)), "patches.clearclip": [0, 65]})
    todos = {t.spec.name: t.rows for t in plan.todos}
    assert "global" not in todos
    np.testing.assert_array_equal(todos["patches.clearclip"], np.arange(1, 65))
    views = todos["views.rrc50-2"]
    assert 32 <= len(views) <= 60
    assert plan.bytes == 64 * 4 * 32 + len(views) * 2 * 32
    assert plan.held == {"global": 66, "patches.clearclip": 2, "views.rrc50-2": 0}
    assert 66 not in plan.rows  # its image is gone


def test_shards_are_cut_by_what_is_asked_not_by_what_is_missing(backbone: Any) -> None:
    backbone.gflops = 40.0
    fresh = plan_of(backbone, {})
    later = plan_of(backbone, {"global": list(range(60)), "patches.clearclip": list(range(66))})
    cuts = [int(block[0]) for block in fresh.blocks]
    assert cuts == list(range(0, 66, 8))
    for block in later.blocks:  # every one within a shard of the other
        assert len(np.unique(block // 8)) == 1


def test_draws_step_around_unreadable_images(backbone: Any) -> None:
    usable = np.ones(len(ZOO), dtype=bool)
    views = scope_rows(ZOO, FEW_SHOT)
    usable[views[0]] = False
    again = scope_rows(ZOO, FEW_SHOT, usable)
    assert views[0] not in again
    assert len(np.setdiff1d(again, views)) <= 6


def test_scopes() -> None:
    assert scope_rows(ZOO, Scope("train")).tolist() == list(range(60))
    assert scope_rows(ZOO, Scope("pool")).tolist() == list(range(60))
    assert scope_rows(ZOO, Scope("query")).tolist() == list(range(60, 66))
    assert scope_rows(ZOO, Scope("all")).tolist() == list(range(66))
    with pytest.raises(TaskError, match="name other rows"):
        scope_rows(replace(ZOO, splits={"test": np.array([1])}), FEW_SHOT)


@given(st.integers(1, 80))
def test_a_limit_is_even_over_splits_and_classes(limit: int) -> None:
    rows = stratified(ZOO, limit)
    assert len(rows) == min(limit, 66)
    assert (np.diff(rows) > 0).all()
    counts = [
        (int(np.isin(rows, members[ZOO.labels[members] == label]).sum()),
         int((ZOO.labels[members] == label).sum()))
        for members in ZOO.splits.values() for label in (0, 1)
    ]  # fmt: skip
    most = max(taken for taken, _ in counts)
    assert all(taken >= min(most - 1, there) for taken, there in counts)
    assert set(rows.tolist()) <= set(stratified(ZOO, limit + 1).tolist())


def test_a_scope_may_be_a_split() -> None:
    assert scope_rows(ZOO, Scope("sketch")).tolist() == [65]
    with pytest.raises(UnknownNameError, match="did you mean 'sketch'"):
        scope_rows(ZOO, Scope("sketsh"))
    small = scope_rows(ZOO, Scope("few-shot", 2, (1, 1)))
    assert len(small) <= 6
    assert set(small) <= set(scope_rows(ZOO, Scope("few-shot", 2, (1, 4))).tolist())


def test_asks_stand_side_by_side_and_join_their_rows(backbone: Any) -> None:
    specs, _ = component_specs(
        backbone,
        patches=["clearclip:int8@train,vanilla"],
        views=["2", "3:cdfsl", "2@val"],
        crops=["5", "4:fair"],
        view_patches=["3:cdfsl:vanilla"],
        seed=7,
    )
    shapes = {a.name: (a.row_shape, [str(s) for s in a.scopes]) for a in specs}
    assert shapes == {
        "global": ((16,), ["all"]),
        "patches.clearclip.int8": ((4, 20), ["train"]),
        "patches.vanilla": ((4, 16), ["all"]),
        "views.rrc50-2@7": ((2, 16), ["few-shot", "val"]),
        "views.cdfsl-3@7": ((3, 16), ["few-shot"]),
        "crops.lazsl-5@7": ((5, 16), ["query"]),
        "boxes.lazsl-5@7": ((5, 4), ["query"]),
        "crops.fair-4@7": ((4, 16), ["pool"]),
        "boxes.fair-4@7": ((4, 4), ["pool"]),
        "view_patches.vanilla.cdfsl-3@7": ((3, 4, 16), ["few-shot"]),
    }
    assert specs[1].row_bytes == 80
    assert specs[6].row_bytes == 80
    plan = make_plan(ZOO, backbone, specs, covered=lambda c: np.zeros(67, bool), micro_batch=8)
    kinds = {(p.recipe, p.count) for p, _ in encoded_rows(plan.todos)}
    assert kinds == {("", 1), ("rrc50", 2), ("cdfsl", 3), ("lazsl", 5), ("fair", 4)}
    assert plan.component_bytes["crops.lazsl-5@7"] == 6 * 5 * 32
    assert "crops.lazsl-5@7: 6 rows, 960 B" in plan.sentence()


def test_more_views_stand_for_fewer(backbone: Any) -> None:
    def settled(views: list[str], held: list[str]) -> dict[str, list[str]]:
        specs, _ = component_specs(backbone, patches=["none"], views=views)
        found, notes = merge_counts(specs, backbone, held)
        assert len(notes) == len(specs) - len({a.name for a in specs} & {a.name for a in found})
        return {a.name: [str(s) for s in a.scopes] for a in found if a.key.count}

    assert settled(["10"], []) == {"views.rrc50-10": ["few-shot"]}
    assert settled(["10@val"], ["views.rrc50-20"]) == {"views.rrc50-20": ["val"]}
    assert settled(["10"], ["views.rrc50-20", "views.rrc50-10"]) == {"views.rrc50-10": ["few-shot"]}
    assert settled(["2@val", "4"], []) == {"views.rrc50-4": ["val", "few-shot"]}
    other = ["views.cdfsl-20", "views.rrc50-20@3", "crops.lazsl-20", "global", "views.rrc50-4"]
    assert settled(["10"], other) == {"views.rrc50-10": ["few-shot"]}


@pytest.mark.parametrize("held", [["crops.lazsl-9"], ["boxes.lazsl-9"]])
def test_crops_and_their_boxes_are_settled_together(backbone: Any, held: list[str]) -> None:
    def settled(crops: list[str], held: list[str]) -> set[str]:
        specs, _ = component_specs(backbone, patches=["none"], crops=crops)
        return {a.name for a in merge_counts(specs, backbone, held)[0]} - {"global"}

    # A pass was killed between the two lines, or all shards of one of the two were lost.
    assert settled(["4"], held) == {"crops.lazsl-9", "boxes.lazsl-9"}
    both = {"crops.lazsl-9", "boxes.lazsl-9", "crops.lazsl-12", "boxes.lazsl-12"}
    assert settled(["9", "12"], held) == both


def test_without_patches_there_is_a_note(backbone: Any) -> None:
    backbone.variants = ()
    specs, notes = component_specs(backbone)
    assert [a.key for a in specs] == [ComponentKey(kind="global")]
    assert "no patch features" in notes[0]
    assert component_specs(backbone, patches=["none"])[1] == ()


def test_a_listing_says_its_first_classes_and_how_many_others() -> None:
    assert listed(ZOO).endswith("; classes (2): class 0, class 1.")
    many = listing({"train": [0]}, list(range(7)))
    assert listed(many).endswith(
        "; classes (7): class 0, class 1, class 2, class 3, class 4 and 2 more."
    )
