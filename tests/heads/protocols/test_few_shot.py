"""The few-shot and zero-shot protocols, from a cache to the record."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featcache.errors import MissingComponentError, TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads.protocols import few_shot, training
from heads.protocols.recording import AT_ONE_SHOT, ONE_DRAW
from heads.results.reading import from_json
from heads.results.record import Result

World = Callable[..., FeatureSet]
QUICK: dict[str, Any] = {"alpha": [0.5, 2.0], "beta": 5.5}


def run(features: FeatureSet, method: str = "tip-adapter", **more: Any) -> Result:
    arguments = {"shots": 4, "settings": QUICK} | more
    return training.run(method, features=features, **arguments)


def test_more_answers_than_a_record_holds_are_refused_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_shot, "ANSWERED", 149)
    with pytest.raises(TaskError, match=r"3 seeds of 50 queries .* Lower seeds"):
        run(world(), progress=lambda *_: pytest.fail("it has begun"))
    assert run(world(), seeds=(1, 2)).repetitions == 2


def test_the_record(world: World) -> None:
    result = run(world(text_noise=1.0))
    assert (result.protocol, result.selection, result.shots) == ("few_shot", "few-shot-val", 4)
    assert result.seeds == (1, 2, 3)
    assert result.repetitions == 3
    assert result.variant == "alpha=0.5,2 beta=5.5"
    assert {point["beta"] for point in result.chosen} == {5.5}
    assert result.metrics["top1"].interval == "repetitions and queries"
    assert ONE_DRAW not in result.notes
    assert result.zero_shot_top1 is not None
    assert result.metrics["top1"].mean > result.zero_shot_top1
    assert result.predictions is not None
    assert result.predictions.predicted.shape == (3, 50)
    assert from_json(result.to_json()) == result


def test_same_seed_same_answers(world: World) -> None:
    one, other = run(world()), run(world())
    assert one.predictions is not None
    assert other.predictions is not None
    assert np.array_equal(one.predictions.predicted, other.predictions.predicted)
    assert one.chosen == other.chosen


def test_equal_draws_are_one_repetition(world: World) -> None:
    result = run(world(), shots=None)
    assert (result.seeds, result.repetitions) == ((1,), 1)
    assert result.metrics["top1"].interval == "queries"
    assert any("same draw" in note for note in result.notes)
    stored = run(world(draws="stored"), shots=4)
    assert stored.repetitions == 1
    assert ONE_DRAW in stored.notes
    assert ONE_DRAW in result.notes
    assert run(world(), seeds=[2, 2, 5]).seeds == (2, 5)


def test_figures_simulated_at_one_shot_are_told_at_one_shot(world: World) -> None:
    for shots, seeds, told in ((1, [1], True), (4, [1], False), (1, [1, 2], False)):
        notes = run(world(), shots=shots, seeds=seeds).notes
        assert (AT_ONE_SHOT in notes) == told
        assert (ONE_DRAW in notes) == (len(seeds) == 1)


def test_a_note_offers_no_more_shots_than_there_are(world: World) -> None:
    notes = run(world(), shots=10_000_000, seeds=[1]).notes
    (note,) = (n for n in notes if n.startswith("Trained without views: they are not cached"))
    largest = run(world(), shots=None).support
    assert largest is not None
    assert f"@few-shot({largest.largest},seeds=1)" in note


@pytest.mark.parametrize("mode", ["few-shot-val", "k-shot-val", "full-val", "cv", "none", "oracle"])
def test_every_selection_runs_and_is_recorded(world: World, mode: str) -> None:
    settings = {"beta": 5.5} if mode == "none" else QUICK
    result = run(world(), selection=mode, settings=settings, seeds=[1])
    assert result.selection == mode
    assert result.oracle == (mode == "oracle")


def test_oracle_is_never_below_an_honest_choice(world: World) -> None:
    features = world(noise=0.6)
    grid = {"alpha": [0.1, 1.0, 4.0], "beta": [1.0, 5.5]}
    honest = run(features, settings=grid)
    oracle = run(features, settings=grid, selection="oracle")
    assert oracle.metrics["top1"].mean >= honest.metrics["top1"].mean


def test_without_choice_nothing_is_selected(world: World) -> None:
    result = run(world(), settings={"alpha": 1, "beta": 5.5})
    assert result.selection == "none"


def test_without_val_the_folds_of_the_support_choose(world: World) -> None:
    features = world(counts={"train": 8, "test": 6})
    result = run(features)
    assert result.selection == "cv"
    assert any("no labelled val images" in note for note in result.notes)
    assert run(features, shots=1, settings={"beta": 5.5}).selection == "none"
    with pytest.raises(TaskError, match=r"no labelled val images.*selection='cv'"):
        run(features, selection="full-val")


def test_evaluating_val_needs_another_selection(world: World) -> None:
    with pytest.raises(TaskError, match="in both"):
        run(world(), split="val")
    assert run(world(), split="val", selection="cv").split == "val"


def test_short_classes_are_told(world: World) -> None:
    features = world(counts={"train": (8, 2, 8, 8, 8), "val": 4, "test": 4})
    assert any("class 1 2" in note for note in run(features).notes)
    with pytest.raises(TaskError, match="drop strict_shots"):
        run(features, strict_shots=True)


def test_unreadable_images_are_not_used(world: World) -> None:
    features = world(counts={"train": 4, "val": 2, "test": 4})
    ok = features.ok.copy()
    ok[[0, int(features.usable("test")[0])]] = False
    features.components["global"].values[[0]] = 0  # type: ignore[attr-defined]
    result = run(replace(features, ok=ok))
    assert result.queries == 19
    assert any("class 0 3" in note for note in result.notes)


def test_class_weights_are_part_of_the_variant(world: World) -> None:
    result = run(world(), method="tip-adapter-f", class_weights="balanced", seeds=[1])
    assert result.variant == "alpha=0.5,2 beta=5.5 class_weights=balanced"


@pytest.mark.parametrize(("name", "used"), [("gda", False), ("ridge", True), ("cmm", True)])
def test_class_weights_that_change_nothing_are_told(world: World, name: str, used: bool) -> None:
    settings = {"steps": 3} if name == "cmm" else {}
    result = training.run(
        name, features=world(), shots=2, class_weights="balanced", settings=settings
    )
    assert any("no use of class weights" in note for note in result.notes) != used


def test_folds_are_not_trained_where_they_can_choose_nothing(world: World) -> None:
    """lp++ keeps its best step and has no grid: folds cannot say which step that is."""
    without_val = world(counts={"train": 4, "test": 4})
    asked = training.run("lp++", features=world(), shots=4, selection="cv")
    forced = training.run("lp++", features=without_val, shots=4)
    for result in (asked, forced):
        assert result.selection == "none"
        assert any("last step" in note for note in result.notes)


def test_the_texts_are_part_of_the_record(world: World) -> None:
    features = world(descriptions=True)
    plain = training.run("gda", features=features, shots=2, seeds=[1])
    named = training.run(
        "gda", features=features, shots=2, seeds=[1], settings={"text": "description"}
    )
    assert plain.texts == named.texts.partition(":")[0] != ""
    assert named.texts.partition(":")[2] not in ("", plain.texts)
    assert features.text is not None
    other = replace(features, text=replace(features.text, templates=("another {}.",)))
    assert training.run("gda", features=other, shots=2, seeds=[1]).texts != plain.texts
    assert training.run("knn", features=world(text=False), shots=2, seeds=[1]).texts == ""


def test_zero_shot_ignores_shots(world: World) -> None:
    for result in (
        training.run("zero-shot", features=world(), shots=16),
        training.run("zero-shot", features=world()),
    ):
        assert (result.protocol, result.selection, result.shots) == ("zero_shot", "none", 0)
        assert result.repetitions == 1
        assert result.metrics["top1"].mean == result.zero_shot_top1


def test_zero_shot_needs_no_train_split(world: World) -> None:
    assert training.run("zero-shot", features=world(counts={"test": 5})).queries == 25


def test_without_texts(world: World) -> None:
    features = world(text=False)
    result = run(features, method="linear-probe", settings={"C": 1})
    assert result.zero_shot_top1 is None
    with pytest.raises(MissingComponentError, match="needs class texts"):
        run(features)


def test_gda_runs_without_texts_and_says_so(world: World) -> None:
    without = run(world(text=False), method="gda", settings={})
    alone = run(world(), method="gda", settings={"fusion": False})
    assert without.predictions is not None
    assert alone.predictions is not None
    assert np.array_equal(without.predictions.predicted, alone.predictions.predicted)
    note = "The data set has no class texts: the discriminant answered alone."
    assert note in without.notes
    assert note not in alone.notes
    assert alone.variant == "fusion=false"
    assert run(world(text=False), method="gda", shots=1, settings={}).metrics["top1"].mean > 0.2


def test_errors(world: World) -> None:
    with pytest.raises(UnknownNameError, match="Unknown method 'tip'"):
        run(world(), method="tip")
    with pytest.raises(UnknownNameError, match="Unknown selection 'val'"):
        run(world(), selection="val")
    with pytest.raises(UnknownNameError, match=r"Unknown split 'tset'.*'test'"):
        run(world(), split="tset")
    with pytest.raises(UsageError, match="at least one seed"):
        run(world(), seeds=[])
    with pytest.raises(UsageError, match="shots must be at least 1"):
        run(world(), shots=0)
    with pytest.raises(TaskError, match="no labelled training images"):
        run(world(counts={"test": 4}))


def test_progress_is_told(world: World) -> None:
    told: list[str] = []
    run(world(), progress=lambda what, done, total: told.append(what))
    assert set(told) == {"training", "evaluating"}
