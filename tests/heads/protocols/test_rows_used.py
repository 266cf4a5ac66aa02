"""The record says which images there really were: shots that data did not hold, broken files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import TaskError
from featcache.types import FeatureSet
from heads.protocols import episodic, training
from heads.results import answers, store
from heads.results.compare import compare as comparison
from heads.results.reading import from_json
from heads.results.record import Result, Support

World = Callable[..., FeatureSet]
FOUR = {"train": 4, "val": 4, "test": 6}
UNEVEN = {"train": (2, 4, 4, 4, 4), "val": 4, "test": 6}


def run(features: FeatureSet, method: str = "ridge", **more: Any) -> Result:
    return training.run(method, features=features, **{"shots": 4, **more})


def without(features: FeatureSet, split: str, count: int | None = None) -> FeatureSet:
    """Return the same data with unreadable images, one after the other through the classes."""
    rows = features.listing.splits[split]
    ok = features.ok.copy()
    ok[rows[:: max(len(rows) // (count or len(rows)), 1)][:count]] = False
    return replace(features, ok=ok)


@pytest.mark.parametrize("shots", [4, 16, 100_000_000, None])
def test_shots_that_are_not_there_are_not_claimed(world: World, shots: int | None) -> None:
    result = run(world(counts=FOUR), shots=shots)
    assert result.support == Support(smallest=4, largest=4, whole=True)
    assert (result.shots, result.shots_used, result.shots_text) == (shots, 4, "4 shots")
    uneven = run(world(counts=UNEVEN), shots=shots)
    assert uneven.support == Support(smallest=2, largest=4, whole=True)
    assert uneven.shots_text == "all shots (2-4 a class)"
    assert run(world(counts=UNEVEN), shots=3).shots_text == "3 shots (2-3 a class)"
    assert from_json(uneven.to_json()) == uneven


def test_equal_runs_are_one_however_they_were_asked_for(world: World, tmp_path: Path) -> None:
    features = world(counts=FOUR)
    for shots in (4, 16, 100_000_000, None):
        store.save(run(features, shots=shots), tmp_path)
    store.save(run(features, "knn", shots=4), tmp_path)
    (group,) = comparison.compare(tmp_path).groups
    assert [r.method for r in group.rows].count("ridge") == 1
    assert "4 shots" in group.title
    assert comparison.compare(tmp_path, shots=[16]).groups == (group,)


@pytest.mark.parametrize(
    ("counts", "shots"),
    [
        ({"train": 2, "val": 4, "test": 6}, (2, 16)),  # 2 or 4 images a class to choose by
        ({"train": 4, "val": 9, "test": 6}, (4, 16)),  # as many, drawn after others
    ],
)
def test_runs_that_chose_on_other_images_are_not_equal(
    world: World, counts: dict[str, int], shots: tuple[int, int]
) -> None:
    runs = [run(world(counts=counts), shots=k) for k in (*shots, shots[0])]
    (group,) = comparison.group(runs)
    assert len({row.name for row in group.rows}) == 2
    assert sorted(row.equals for row in group.rows) == [0, 1]
    (differs,) = {row.name.split(" (")[1].split()[0] for row in group.rows}
    assert differs in ("validated", "draws")
    free = [run(world(counts=counts), shots=k, selection="none") for k in shots]
    (row,) = comparison.group(free)[0].rows
    assert row.equals == 1


def test_draws_are_those_of_images_and_labels(world: World) -> None:
    first, other = run(world(), seeds=(1,)), run(world(), seeds=(2,))
    assert len({first.draws, other.draws, run(world(), seeds=(1, 2)).draws}) == 3
    assert run(world(), "gda", seeds=(1,)).draws == first.draws
    assert from_json(first.to_json()).draws == first.draws


def test_defaults_follow_the_shots_that_are_there(world: World) -> None:
    each = [run(world(counts=FOUR), "proker", shots=s, selection="none") for s in (4, 16, 10**8)]
    assert each[0].config == each[1].config == each[2].config
    assert each[0].metrics["top1"].values[0] == each[2].metrics["top1"].values[0]


def test_stored_draws_are_marked(world: World) -> None:
    result = run(world(draws="stored"))
    assert result.support is not None
    assert result.support.stored
    assert result.marks == ("stored draw",)
    assert run(world()).marks == ()


def test_episodes_say_what_they_used(world: World) -> None:
    small = {"ways": 3, "shots": 2, "queries": 4, "episodes": 6}
    features = without(world(), "test", 2)
    result = episodic.run("ridge", features=features, **small)
    assert (result.support, result.unreadable) == (Support(smallest=2, largest=2, whole=False), 2)
    named = answers.by_name(result)
    for ids, labels in zip(named.ids, named.labels, strict=True):
        rows = [features.listing.ids.index(i) for i in ids]
        assert features.labels[rows].tolist() == labels.tolist()


def test_unreadable_images_are_counted(world: World, tmp_path: Path) -> None:
    features = without(without(world(), "test", 5), "train", 3)
    result = run(features)
    assert (result.queries, result.unreadable) == (45, 5)
    assert any(note.startswith("5 of 50 images of 'test'") for note in result.notes)
    assert any(note.startswith("3 of 60 images of 'train'") for note in result.notes)
    store.save(result, tmp_path)
    (group,) = comparison.compare(tmp_path).groups
    assert "45 queries, 5 unreadable not counted" in group.title
    assert run(world()).unreadable == 0
    pool = training.run("fair", features=_for_fair(world, 4))
    assert any(note.startswith("4 of 60 images of 'train'") for note in pool.notes)


def _for_fair(world: World, unreadable: int) -> FeatureSet:
    also = {"views.weak-1": (1,), "views.strong-1": (1,), "crops.fair-2": (2,)}
    return without(world(also=also, descriptions=True), "train", unreadable)


@pytest.mark.parametrize("split", ["test", "train"])
def test_nothing_readable_is_said(world: World, split: str) -> None:
    with pytest.raises(TaskError, match="could be read"):
        run(without(world(), split))


def test_answers_say_which_image_they_are_about(world: World, tmp_path: Path) -> None:
    features = without(world(), "test", 5)
    result = run(features)
    named = answers.by_name(store.load(store.save(result, tmp_path)))
    asked = features.usable("test")
    assert named.ids == (tuple(features.listing.ids[int(r)] for r in asked),) * 3
    assert named.classes == features.classes
    assert named.labels.tolist() == [features.labels[asked].tolist()] * 3
    assert result.predictions is not None
    assert np.array_equal(named.predicted, result.predictions.predicted)
