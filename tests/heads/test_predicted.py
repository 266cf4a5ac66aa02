"""Which class a label means, and when an accuracy is stated."""

import pytest

from heads.predicted import Candidate, ClassNames, Prediction, Tally


def said(name: str, label: str | None, classes: list[str]) -> Prediction:
    candidate = Candidate(label=classes.index(name), name=name, probability=0.9)
    return Prediction(id="a.jpg", candidates=(candidate,), label=label)


@pytest.mark.parametrize(
    ("label", "means"),
    [("Red Fox", 0), ("red_fox", 0), ("RED-FOX ", 0), ("C", 1), ("C++", 2), ("c", None),
     ("fox", None), ("", None), ("crane", None), ("Ähre", 5), ("ähre", 5)],
)  # fmt: skip
def test_a_label_means_one_class_or_none(label: str, means: int | None) -> None:
    names = ClassNames(["Red Fox", "C", "C++", "crane", "crane", "Ähre"])
    assert names.find(label) == means


def test_the_accuracy_is_that_of_labelled_images_that_were_answered() -> None:
    classes = ["ant", "bee", "fly"]
    tally = Tally(classes)
    for name, label in (("ant", "ant"), ("bee", "Bee"), ("ant", "bee"), ("fly", None)):
        tally.add(said(name, label, classes))
    tally.add(Prediction(id="torn.jpg", label="ant", problem="is empty"))
    assert (tally.total, tally.answered, tally.unusable) == (5, 4, 1)
    assert tally.sentence().startswith("top-1 66.7 % ±")
    assert "3 labelled images; 1 of 3 classes have none." in tally.sentence()


def test_no_accuracy_with_labels_of_other_classes() -> None:
    classes = ["ant", "bee"]
    tally = Tally(classes)
    tally.add(said("ant", "ant", classes))
    tally.add(said("ant", "wasp", classes))
    assert tally.sentence() == (
        "No accuracy: 1 label or folder, of 1 image, mean no class of the head: 'wasp'."
    )


def test_nothing_is_said_without_labels() -> None:
    tally = Tally(["ant"])
    assert tally.sentence() == ""
    tally.add(said("ant", None, ["ant"]))
    assert tally.sentence() == ""


def test_one_labelled_image_has_no_interval() -> None:
    tally = Tally(["ant"])
    tally.add(said("ant", "ant", ["ant"]))
    assert tally.sentence() == "top-1 100.0 % of 1 labelled image."
