"""Files and records of calibrated heads: exact, and nothing believed that is not checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.errors import FeatcacheError, HeadError
from featcache.types import FeatureSet
from heads import kept
from heads.answers import answers_of
from heads.head import Head
from heads.head_file import pack, unpack
from heads.protocols import evaluation, obtain
from heads.protocols.calibrating import KNOWN
from heads.results.reading import from_dict, from_json
from tests.heads.certainty.made import plan
from tests.heads.test_head import rewritten


@pytest.mark.parametrize("kind", ["split", "cross"])
def test_a_file_keeps_the_calibration(
    kind: str, features: FeatureSet, request: pytest.FixtureRequest
) -> None:
    head: Head = request.getfixturevalue(kind)
    again = unpack(pack(head), "it")
    assert pack(again) == pack(head)
    one, other = (answers_of(h, features, coverage=0.8, reject=0.1) for h in (head, again))
    assert one.sets is not None
    assert one.rejected is not None
    assert other.sets is not None
    assert other.rejected is not None
    assert torch.equal(one.sets, other.sets)
    assert torch.equal(one.rejected, other.rejected)


def test_a_head_without_the_section_is_read(split: Head) -> None:
    older = rewritten(pack(split), lambda d: d["sections"].pop("calibration"))
    assert unpack(older, "it").calibration is None


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []},
        {"parts": None},
        {"parts": [7]},
        {"parts": [{}]},
        {"temperature": 0},
        {"temperature": "warm"},
        {"scores": ["lac"]},
        {"scores": 3},
        {"params": ["nowhere"]},
        {"params": [], "fixed": []},
    ],
)
def test_a_calibration_that_lies_is_refused(split: Head, change: dict[str, Any]) -> None:
    def lie(description: dict[str, Any]) -> None:
        section = description["sections"]["calibration"]
        if "parts" in change:
            section.update(change)
        else:
            section["parts"][0].update(change)

    with pytest.raises(FeatcacheError):
        unpack(rewritten(pack(split), lie), "it")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e9])
def test_scores_that_are_not_sorted_and_finite_are_refused(split: Head, value: float) -> None:
    assert split.calibration is not None
    (part,) = split.calibration.parts
    bent = {name: torch.cat([s[:-1], s.new_tensor([value])]) for name, s in part.scores.items()}
    head = replace(
        split, calibration=replace(split.calibration, parts=(replace(part, scores=bent),))
    )
    with pytest.raises(HeadError, match="finite and sorted"):
        unpack(pack(head), "it")


def test_the_record_says_how_sure_the_heads_were(features: FeatureSet) -> None:
    result = evaluation.measure(plan(features, seeds=(1, 2))).result
    sure = result.certainty
    assert sure is not None
    assert len(sure.ece) == len(sure.covered) == len(sure.size) == 2
    assert (sure.kind, sure.rule, sure.asked, sure.rows) == ("split", "lac", 0.9, 80)
    assert from_json(result.to_json()) == result
    older = result.as_dict()
    del older["certainty"]
    assert from_dict(older).certainty is None
    for name, value in (("ece", [2.0, 0.1]), ("kind", "other"), ("size", [1.0]), ("covered", [])):
        with pytest.raises(FeatcacheError, match="certainty"):
            from_dict({**older, "certainty": {**result.as_dict()["certainty"], name: value}})


def test_kept_heads_are_not_measured_on_what_calibrated_them(
    features: FeatureSet, tmp_path: Path
) -> None:
    for split_, known in (("test", False), ("val", True)):
        made = plan(features, method="nearest-mean", splits=(split_,))
        (one,) = obtain.obtain(made, tmp_path)
        obtain.save(one, tmp_path)
        assert (KNOWN in one.result.notes) == known
        assert (one.result.certainty is None) == known
    assert kept.load(tmp_path, one.result.run).calibration is not None
