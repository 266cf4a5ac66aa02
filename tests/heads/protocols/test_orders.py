"""Draws of batches of few classes and of streams, and their lists on disk."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import ImportedFileError
from featcache.types import FeatureSet
from heads.protocols import orders as lists
from tests.heads.conftest import make_world
from tests.heads.protocols.small_orders import COUNTS, batches, same, streams

World = Callable[..., FeatureSet]


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return make_world(counts=COUNTS)


def test_batches_hold_few_classes_and_are_smaller_where_these_are(features: FeatureSet) -> None:
    drawn = batches(features)
    sizes = [len(rows) for rows in drawn.rows]
    assert min(sizes) < 8
    assert max(sizes) == drawn.longest == 8
    test = set(features.usable("test").tolist())
    for rows in drawn.rows:
        assert len(np.unique(features.labels[rows])) <= 3
        assert len(set(rows.tolist())) == len(rows)
        assert set(rows.tolist()) <= test
    assert same(batches(features, repeats=7), replace(drawn, rows=drawn.rows[:7]))
    assert not same(batches(features, seed=2), drawn)


def test_more_classes_than_there_are_is_all(features: FeatureSet) -> None:
    drawn = batches(features, effective_classes=(9, 9), batch=99)
    assert {len(rows) for rows in drawn.rows} == {30}


@pytest.mark.parametrize("name", ["caltech50", "imagenet256"])
@pytest.mark.parametrize("classes", [(1, 4), (2, 10), (5, 25)])
def test_batches_are_those_of_the_released_code(
    name: str, classes: tuple[int, int], shared: Callable[[str], Path], world: World
) -> None:
    with np.load(shared(f"features/{name}_vitb32.npz")) as file:
        labels = file["test_labels"]
    expected = np.load(shared(f"golden/stata_{name}_batch{classes[0]}-{classes[1]}.npz"))["indices"]
    made = world(counts={"test": 1}, classes=len(labels))
    at = replace(made, listing=replace(made.listing, labels=labels.astype(np.int64)))
    drawn = batches(at, batch=64, effective_classes=classes, repeats=1)
    assert drawn.rows[0].tolist() == expected.tolist()


def test_correlated_streams_meet_their_classes_in_runs(features: FeatureSet) -> None:
    def changes(correlation: float | str) -> float:
        drawn = streams(features, correlation=correlation, repeats=40)
        labels = [features.labels[rows] for rows in drawn.rows]
        return float(np.mean([len(np.unique(y[i : i + 8])) for y in labels for i in (0, 8, 16)]))

    assert changes("separate") < changes(0.001) < changes(100.0) <= changes("none") + 0.2


@pytest.mark.parametrize("correlation", [0.001, 0.01, 5.0, "separate"])
def test_streams_hold_every_image_once_but_an_incomplete_last_batch(
    features: FeatureSet, correlation: float | str
) -> None:
    drawn = streams(features, correlation=correlation)
    test = set(features.usable("test").tolist())
    for rows in drawn.rows:
        assert len(rows) == 24
        assert len(set(rows.tolist())) == 24
        assert set(rows.tolist()) <= test
    assert same(
        streams(features, correlation=correlation, repeats=2), replace(drawn, rows=drawn.rows[:2])
    )
    assert not same(streams(features, correlation=correlation, seed=2), drawn)


def test_random_orders_are_those_of_the_released_code(features: FeatureSet) -> None:
    drawn = streams(features, correlation="none", repeats=3)
    test = features.usable("test")
    for rows, seed in zip(drawn.rows, (437144, 940288, 669800), strict=True):
        order = np.random.default_rng(seed).choice(range(30), 30, replace=False)
        assert rows.tolist() == test[order].tolist()
    assert drawn.batches(0)[-1] == slice(24, 30)


def test_slots_follow_the_specification(features: FeatureSet) -> None:
    """The definition written out, slot by slot."""
    rng = np.random.default_rng([1, 0])
    test, slots = features.usable("test"), 30 // 8
    collected: list[list[int]] = [[] for _ in range(slots)]
    for k in range(5):
        rows = [int(r) for r in test if features.labels[r] == k]
        shares = rng.dirichlet([0.5] * slots)
        ends = [int(sum(shares[: s + 1]) * len(rows)) for s in range(slots - 1)] + [len(rows)]
        for s, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            collected[s] += rows[start:end]
    expected = [int(r) for slot in collected for r in rng.permutation(slot)][:24]
    assert streams(features, correlation=0.5).rows[0].tolist() == expected


def test_a_list_survives_the_disk(features: FeatureSet, tmp_path: Path) -> None:
    for drawn in (batches(features), streams(features)):
        path = tmp_path / lists.FILE
        path.write_text(drawn.to_json(features.listing))
        again = lists.read(path, features)
        assert same(again, drawn)
        assert again.digest(features.listing) == drawn.digest(features.listing)
        assert again.stated == drawn.stated


@pytest.mark.parametrize("turn", ["byte", "no seal", "another data set", "lost image", "newer"])
def test_lists_that_do_not_fit_are_refused(features: FeatureSet, tmp_path: Path, turn: str) -> None:
    path, at = tmp_path / lists.FILE, features
    text = batches(features).to_json(features.listing)
    if turn == "byte":
        text = text.replace('"batch":8', '"batch":9')
    elif turn == "no seal":
        text = "{}"
    elif turn == "newer":
        text = "not json"
    elif turn == "another data set":
        at = replace(features, listing=replace(features.listing, dataset="other"))
    else:
        splits = {**features.listing.splits, "test": features.listing.splits["test"][:4]}
        at = replace(features, listing=replace(features.listing, splits=splits))
    path.write_text(text)
    with pytest.raises(ImportedFileError, match=r"orders\.json"):
        lists.read(path, at)


@pytest.mark.parametrize(
    "orders", [[[0, 0]], [[9999]], [[-1]], [[]], [["a"]], "x", [[0], [0.5]], [[[0]]]]
)
def test_hostile_positions_are_refused(features: FeatureSet, tmp_path: Path, orders: Any) -> None:
    from featcache.store.format.seal import seal, unseal

    raw, _ = unseal(batches(features).to_json(features.listing).removesuffix("\n").encode())
    path = tmp_path / lists.FILE
    path.write_bytes(seal({**raw, "orders": orders})[0])
    with pytest.raises(ImportedFileError, match=r"orders\.json"):
        lists.read(path, features)
