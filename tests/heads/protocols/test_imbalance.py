"""Imbalanced supports: the profiles, the images that are taken, and what the record says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import TaskError, UsageError
from featcache.types import FeatureSet
from heads.protocols import training
from heads.protocols.imbalance import profile
from heads.protocols.plan import Plan, Request
from heads.protocols.sweep import request_of
from heads.results.reading import from_json

World = Callable[..., FeatureSet]
FIVE = ("a", "b", "c", "d", "e")


def planned(features: FeatureSet, support: str | None, **more: Any) -> Plan:
    request = Request(
        method="nearest-mean", features=features, support=support, **({"shots": 8} | more)
    )
    return training.plan(request)


def sizes(plan: Plan) -> list[list[int]]:
    features = plan.run.features
    rows = [support for support, _ in plan.learned_rows]
    classes = len(features.classes)
    return [np.bincount(features.labels[r], minlength=classes).tolist() for r in rows]


def test_a_long_tail_is_exponential_in_whole_images() -> None:
    made = profile("long-tail:0.01:by-label", FIVE)
    assert made.counts(100, 5, 1).tolist() == [100, 31, 10, 3, 1]  # Cui et al.'s int(n r^(i/(c-1)))
    assert made.counts(16, 5, 1).tolist() == [16, 5, 1, 1, 1]
    assert profile("long-tail:0.1:by-label", FIVE[:3]).counts(10, 3, 1).tolist() == [10, 3, 1]
    seeded = profile("long-tail:0.01", FIVE)
    drawn = [seeded.counts(100, 5, seed).tolist() for seed in range(6)]
    assert all(sorted(counts) == [1, 3, 10, 31, 100] for counts in drawn)
    assert len({tuple(counts) for counts in drawn}) > 3
    assert seeded.counts(100, 5, 3).tolist() == drawn[3]


def test_counts_are_read_from_a_file_or_written(tmp_path: Path) -> None:
    file = tmp_path / "counts.txt"
    file.write_text("\ufeff# of a survey\n8\n4 b\n\n2\tc\n1\n0 e\n", encoding="utf-8")
    read = profile(f"counts:{file}", FIVE)
    assert read == profile("counts:8,4,2,1,0", FIVE)
    assert read.text == "counts:8,4,2,1,0"
    assert read.shots(3) == 8
    assert read.counts(8, 5, 1).tolist() == [8, 4, 2, 1, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tail:0.1", "takes long-tail:RATIO"),
        ("long-tail", "takes long-tail:RATIO"),
        ("long-tail:x", "takes long-tail:RATIO"),
        ("long-tail:nan", "between 0 and 1"),
        ("long-tail:1", "between 0 and 1"),
        ("long-tail:0.1:by-size", "takes long-tail:RATIO"),
        ("long-tail:0.1:", "takes long-tail:RATIO"),
        ("counts:", "takes long-tail:RATIO"),
        ("counts:1,2", "has 2 counts, and the data set has 5 classes"),
        ("counts:1,2,,4,5", "whole number of images"),
        ("counts:1,2,3,4,99999999999", "whole number of images"),
        ("counts:4,0,0,0,0", "fewer than two classes"),
        ("counts:/no/such", "/no/such cannot be read"),
    ],
)
def test_what_is_no_profile_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        profile(text, FIVE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1\n2\n3\n4\n-5\n", "'-5' where a whole number"),
        (b"1 a\n2 c\n3\n4\n5\n", "names class 'c' where the data set has 'b'"),
        (b"\xff\xfe1", "not UTF-8"),
        (b"", "has 0 counts"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "counts").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        profile(f"counts:{tmp_path / 'counts'}", FIVE)


def test_the_support_is_a_subset_of_the_balanced_draw(world: World) -> None:
    features = world(counts={"train": 10, "val": 4, "test": 4})
    even, uneven = planned(features, None), planned(features, "long-tail:0.1")
    both = zip(even.learned_rows, uneven.learned_rows, strict=True)
    assert all(set(few) < set(all_) for (all_, _), (few, _) in both)
    classes = len(features.classes)
    for seed, counts in zip(uneven.run.seeds, sizes(uneven), strict=True):
        wanted = profile("long-tail:0.1", features.classes).counts(8, classes, seed)
        assert counts == wanted.tolist()
    assert len({tuple(counts) for counts in sizes(uneven)}) > 1
    assert any("Imbalanced support: 1 to 8 images a class" in note for note in uneven.run.notes)
    assert uneven.run.support is not None
    assert (uneven.run.support.smallest, uneven.run.support.largest) == (1, 8)


def test_all_shots_start_from_the_largest_class(world: World) -> None:
    features = world(counts={"train": 8, "val": 4, "test": 4})
    uneven = planned(features, "long-tail:0.5:by-label", shots=None)
    assert {tuple(counts) for counts in sizes(uneven)} == {(8, 6, 5, 4, 4)}
    assert len(uneven.run.seeds) == 3  # other images of the same classes


def test_a_class_without_an_image_is_said(world: World) -> None:
    features = world(counts={"train": 8, "val": 4, "test": 4})
    plan = planned(features, "counts:8,4,2,1,0", shots=2)
    assert sizes(plan)[0] == [8, 4, 2, 1, 0]
    assert plan.run.shots == 8
    result = training.run("nearest-mean", features=features, support="counts:8,4,2,1,0")
    assert any("1 of 5 classes have fewer than 1 training images" in note for note in result.notes)


def test_a_class_that_cannot_give_as_many_is_said_or_refused(world: World) -> None:
    features = world(counts={"train": 8, "val": 4, "test": 4})
    plan = planned(features, "counts:20,4,2,1,1")
    said = f"Seed 1: 1 of 5 classes have fewer .*{features.classes[0]} 8 of 20"
    with pytest.raises(TaskError, match=said):
        planned(features, "counts:20,4,2,1,1", strict_shots=True)
    assert any("8 of 20" in note for note in plan.run.notes)
    planned(features, "counts:8,4,2,1,1", strict_shots=True)


def test_the_profile_is_part_of_the_spec_and_the_record(world: World) -> None:
    features = world(counts={"train": 8, "val": 4, "test": 4})
    even, uneven = planned(features, None), planned(features, "long-tail:0.1")
    assert even.fit_spec("test").digest() != uneven.fit_spec("test").digest()
    spec = uneven.spec("test")
    assert dict(spec.fit.extra)["support"] == "long-tail:0.1"
    asked = request_of(spec, None, {(spec.fit.dataset, spec.fit.key): features})
    assert training.plan(asked).spec("test").digest() == spec.digest()
    result = training.run("nearest-mean", features=features, shots=8, support="long-tail:0.1")
    assert result.profile == "long-tail:0.1"
    assert result.variant == ""
    assert result.shots_text == "8 shots (1-8 a class), support long-tail:0.1"
    assert from_json(result.to_json()) == result
    long = replace(result, config={"support": "counts:" + ",".join(["10"] * 50)})
    assert long.profile_text.startswith("counts ")
    assert len(long.profile_text) < 20
