"""Calibrated heads: which rows calibrate them, what they say, and their files."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from featcache.draws import labelled
from featcache.errors import HeadError, TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads import registry
from heads.answers import answers_of
from heads.certainty.fitting import check_folds
from heads.contract.rows import Rows
from heads.head import Head
from heads.ops.conformal import class_scores, rank
from heads.ops.score_names import MEASURES, RULES
from heads.protocols import evaluation
from heads.protocols.calibrating import LACKING
from heads.protocols.retrieved import Retrieved
from tests.heads.certainty.made import COUNTS, plan, trained


@pytest.mark.parametrize("method", ["tip-adapter", "gda", "zero-shot", "nearest-mean"])
@pytest.mark.parametrize("selection", ["few-shot-val", "k-shot-val", "cv", "none"])
def test_what_calibrates_was_seen_by_nothing_else(
    features: FeatureSet, method: str, selection: str
) -> None:
    settings = {"alpha": 1.0, "beta": 5.5} if (method, selection) == ("tip-adapter", "none") else {}
    made = plan(features, method=method, selection=selection, seeds=(1, 2), settings=settings)
    val = set(labelled(features.listing, "val").tolist())
    (support, _), held = made.learned_rows[0], made.held[0]
    warm, rest = set(held.warm.tolist()), set(held.rest.tolist())
    assert warm
    assert rest
    assert warm | rest <= val
    assert not warm & rest
    assert not rest & set(support.tolist())
    selected = set(made.validation[0].tolist()) if made.validation else set()
    assert not rest & selected
    assert warm == selected or not selected


def test_halves_of_the_whole_validation(features: FeatureSet) -> None:
    whole, half = (
        plan(features, selection="full-val", calibrate_on=c) for c in ("auto", "half-val")
    )
    assert not len(whole.held[0].rest)
    (one, other) = half.held[0].warm, half.held[0].rest
    assert sorted([*one, *other]) == sorted(labelled(features.listing, "val").tolist())
    assert abs(len(one) - len(other)) <= 1
    assert half.run.extra == {"calibrate_on": "half-val"}
    assert trained(features, selection="full-val").calibration is None
    assert trained(features, selection="full-val").temperature != 1
    halved = trained(features, selection="full-val", calibrate_on="half-val")
    assert halved.calibration is not None
    assert halved.calibration.rows == 50


def test_queries_calibrate_nothing(features: FeatureSet) -> None:
    made = plan(features, method="nearest-mean", splits=("val",))
    assert not len(made.held[0].rest)
    assert not len(made.held[0].warm)
    (result,) = evaluation.measure(made).results
    assert result.certainty is None


def test_copies_of_training_images_do_not_calibrate(features: FeatureSet) -> None:
    before = plan(features)
    hashes = list(features.listing.hashes)
    copy = int(before.held[0].rest[0])
    hashes[copy] = hashes[int(before.learned_rows[0][0][0])]
    copied = replace(features, listing=replace(features.listing, hashes=hashes))
    after = plan(copied)
    assert set(before.held[0].rest) - set(after.held[0].rest) == {copy}


@pytest.mark.parametrize(
    "wanted", [{"method": "transclip"}, {"selection": "oracle"}, {"calibrate_on": "none"}]
)
def test_what_has_seen_the_queries_is_not_calibrated(
    features: FeatureSet, wanted: dict[str, Any]
) -> None:
    made = evaluation.measure(plan(features, **wanted))
    assert made.result.certainty is None
    assert all(h.temperature == 1 and h.calibration is None for h in made.heads[0])


def test_calibrating_changes_no_answer_and_no_digest(features: FeatureSet) -> None:
    auto, none, folds = (plan(features, calibrate_on=c) for c in ("auto", "none", "folds"))
    assert "calibrate_on" not in dict(auto.fit_spec("test").extra)
    assert len({p.spec("test").digest() for p in (auto, none, folds)}) == 3
    results = [evaluation.measure(p).result for p in (auto, none, folds)]
    answers = [r.predictions.predicted for r in results if r.predictions is not None]
    assert all(np.array_equal(answers[0], other) for other in answers)
    assert len({str(r.chosen) for r in results}) == 1


def test_components_that_only_calibration_lacks_are_no_error(
    world: Callable[..., FeatureSet],
) -> None:
    made = world(counts=COUNTS, also={"crops.lazsl-60": (4,)}, descriptions=True)
    complete = plan(made, method="lazsl", selection="few-shot-val")
    rest = complete.held[0].rest
    assert evaluation.fit(complete)[0].calibration is not None
    made.components["crops.lazsl-60"].covered[rest[:1]] = False  # type: ignore[attr-defined]
    result = evaluation.measure(plan(made, method="lazsl")).result
    assert LACKING in result.notes
    assert result.certainty is None or not result.certainty.covered


def test_words_that_are_none_are_refused(features: FeatureSet, split: Head) -> None:
    with pytest.raises(UnknownNameError, match="half-val"):
        plan(features, calibrate_on="half-vals")
    with pytest.raises(UnknownNameError, match="aps"):
        split.sets(features, rule="apps")
    with pytest.raises(UnknownNameError, match="energy"):
        split.rejects(features, measure="energie")
    with pytest.raises(UsageError, match="coverage must be a number between 0 and 1, got 90"):
        split.sets(features, coverage=90.0)


def test_without_validation_images(world: Callable[..., FeatureSet]) -> None:
    bare = world(counts={"train": 12, "test": 30}, noise=0.6)
    head = trained(bare)
    assert (head.temperature, head.calibration) == (1, None)
    with pytest.raises(HeadError, match=r"keeps no calibration rows.*calibrate_on='folds'"):
        head.sets(bare)
    with pytest.raises(TaskError, match=r"no labelled val images .* calibrate_on='folds'"):
        plan(bare, calibrate_on="half-val")
    assert trained(bare, calibrate_on="folds").calibration is not None


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"method": "zero-shot"}, "trained on no class with two labelled images"),
        ({"shots": 1}, "trained on no class with two labelled images"),
        ({"method": "ensemble", "settings": {"members": "gda,knn"}}, "made of other methods"),
    ],
)
def test_folds_that_cannot_calibrate_are_refused_before_training(
    wanted: dict[str, Any], why: str, features: FeatureSet
) -> None:
    with pytest.raises(TaskError, match=rf"{why}.*calibrate_on='auto'"):
        evaluation.fit(
            plan(features, calibrate_on="folds", **wanted),
            progress=lambda *_: pytest.fail("it has begun"),
        )


def test_folds_without_what_queries_are_answered_by_are_refused(make_view: Any) -> None:
    lazsl = registry.get("lazsl")
    with pytest.raises(TaskError, match="lazsl reads crops of the images it answers but not of"):
        check_folds(lazsl, lazsl.config(), make_view())


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"method": "transclip"}, "answers the queries together"),
        ({"selection": "oracle"}, "is chosen on the queries"),
    ],
)
def test_what_sees_the_queries_is_not_calibrated_on_request(
    features: FeatureSet, wanted: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError, match=f"{why}, so other images cannot say"):
        plan(features, calibrate_on="folds", **wanted)


def test_too_few_rows_say_what_they_can_promise(features: FeatureSet, split: Head) -> None:
    assert split.calibration is not None
    (part,) = split.calibration.parts
    few = replace(part, scores={name: s[:17] for name, s in part.scores.items()})
    head = replace(split, calibration=replace(split.calibration, parts=(few,)))
    told = "17 calibration rows promise at most a coverage of 0.94; 0.95 needs 19"
    with pytest.raises(HeadError, match=told):
        head.sets(features, coverage=0.95)
    assert head.sets(features, coverage=0.94).shape == (150, 5)
    with pytest.raises(HeadError, match=r"17 calibration rows .* 0.05 needs 19 rows"):
        head.rejects(features, share=0.05)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["split", "cross"])
def test_sets_are_those_of_a_slow_loop(
    rule: str, kind: str, features: FeatureSet, request: pytest.FixtureRequest
) -> None:
    head: Head = request.getfixturevalue(kind)
    calibration = head.calibration
    assert calibration is not None
    assert calibration.kind == kind
    raw = features.components["global"].take(features.usable("test")[:5])
    x = torch.nn.functional.normalize(raw.float(), dim=-1)
    sets = head.sets(x, coverage=0.8, rule=rule)
    r = rank(calibration.rows, 0.8)
    for i in range(len(x)):
        inside = set()
        for c in range(5):
            smaller = 0
            for part in calibration.parts:
                logits = (part.fitted or head.fitted).logits(Rows.of(x[i : i + 1])).double()
                p = (logits / part.temperature).softmax(-1)
                score = float(class_scores(p, rule)[0, c])
                smaller += sum(s < score - 1e-9 for s in part.scores[rule].tolist())
            inside |= {c} if smaller < r else set()
        best = int(head.predict(x[i : i + 1])[0])
        assert set(torch.nonzero(sets[i])[:, 0].tolist()) == (inside or {best})


def test_one_pass_says_the_same_as_each_question(features: FeatureSet, split: Head) -> None:
    at_once = answers_of(split, features, coverage=0.8, rule="lac", reject=0.1, measure="energy")
    assert torch.equal(at_once.labels, split.predict(features))
    assert torch.equal(at_once.probabilities, split.probabilities(features))
    assert at_once.sets is not None
    assert at_once.rejected is not None
    assert torch.equal(at_once.sets, split.sets(features, 0.8, "lac"))
    assert torch.equal(at_once.rejected, split.rejects(features, 0.1, "energy"))
    plain = answers_of(split, features)
    assert (plain.sets, plain.rejected) == (None, None)


def test_no_set_is_empty(split: Head) -> None:
    """A sure head has empty sets of lac, which get its answer."""
    sure = replace(split, temperature=1e-3)
    assert split.calibration is not None
    (part,) = split.calibration.parts
    zero = {name: torch.zeros_like(s) - 1 for name, s in part.scores.items()}
    part = replace(part, scores=zero)
    head = replace(sure, calibration=replace(split.calibration, parts=(part,)))
    x = torch.eye(16)
    sets = head.sets(x, coverage=0.5, rule="lac")
    assert sets.sum(1).tolist() == [1] * 16
    assert torch.equal(sets.long().argmax(1), head.predict(x))


def test_no_rows_have_no_sets(split: Head) -> None:
    none = answers_of(split, torch.zeros(0, 16), coverage=0.8, reject=0.1)
    assert none.sets is not None
    assert (none.labels.shape, none.sets.shape) == ((0,), (0, 5))


def test_what_is_stranger_than_most_known_rows_is_rejected(
    features: FeatureSet, split: Head
) -> None:
    for measure in MEASURES:
        strange = split.novelty(features, measure)
        rejected = split.rejects(features, share=0.1, measure=measure)
        assert rejected.any()
        assert float(strange[rejected].min()) > float(strange[~rejected].max())


@pytest.mark.parametrize("kind", ["split", pytest.param("cross", marks=pytest.mark.long)])
def test_coverage_over_many_worlds(kind: str, world: Callable[..., FeatureSet]) -> None:
    """The mean over worlds is what the rank rule says, or above what folds guarantee."""
    covered, promised = [], []
    for seed in range(12):
        made = world(counts={"train": 12, "val": 12, "test": 40}, noise=0.8, seed=seed)
        head = trained(
            made, shots=12, calibrate_on="auto" if kind == "split" else "folds", seeds=(seed,)
        )
        assert head.calibration is not None
        sets = head.sets(made, coverage=0.8, rule="lac")
        labels = torch.from_numpy(made.labels[made.usable("test")])
        covered.append(float(sets.gather(1, labels[:, None]).float().mean()))
        promised.append(head.calibration.guarantee(0.8))
    error = float(np.std(covered, ddof=1)) / len(covered) ** 0.5
    assert np.mean(covered) > np.mean(promised) - 3 * error
    assert error < 0.03


def test_another_head_for_other_classes_has_no_calibration(features: FeatureSet) -> None:
    head = trained(features, method="zero-shot")
    assert head.calibration is not None
    assert features.text is not None
    bound = head.rebind(features.text.of_classes(torch.tensor([3, 1])), ("three", "one"))
    assert bound.calibration is None


def test_images_of_a_corpus_are_found_by_features_and_by_row(features: FeatureSet) -> None:
    x = features.unit("global", np.arange(6))
    corpus = Rows.of(x[[0, 1, 5]], labels=torch.zeros(3, dtype=torch.int64))
    parts = replace(corpus, x=-corpus.x)  # of parts of images, whose features are others
    index, asked = np.array([0, 1, 2, 3]), Rows.of(x[:4])
    whole = Retrieved(rows=corpus, name="wild", own_role=False)
    assert whole.holds(asked, index).tolist() == [True, True, False, False]
    cropped = Retrieved(rows=parts, name="wild", own_role=False, images=torch.tensor([3, -1, 1]))
    assert cropped.holds(asked, index).tolist() == [False, True, False, True]
