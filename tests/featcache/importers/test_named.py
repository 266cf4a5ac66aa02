"""Names, templates and texts of a known data set, and features that cannot be of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import ImportedFileError, UnknownNameError
from featcache.importers.contents import Contents
from featcache.importers.features import import_features
from featcache.importers.known import Known, known_dataset
from featcache.importers.naming import with_names
from tests.featcache.importers.miniatures import rows, save, tensor

EUROSAT = 10
COUNTS = {"val": 30, "test": 40}


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let features of a few images pass for EuroSAT's; counts have a test of their own."""

    def known(name: str) -> Known:
        return replace(known_dataset(name), counts={})

    monkeypatch.setattr("featcache.importers.features.known_dataset", known)


def contents(width: int = 128, classes: int = EUROSAT, **changes: Any) -> Contents:
    """Make features in the shape of EuroSAT's, with few images."""
    made: dict[str, Any] = {
        "train2_features": rows(2 * classes, 0, width=width),
        "train2_labels": np.repeat(np.arange(classes), 2),
    }
    for seed, (split, count) in enumerate(COUNTS.items(), 1):
        made[f"{split}_features"] = rows(count, seed, width=width)
        made[f"{split}_labels"] = np.arange(count) % classes
    arrays = {k: v for k, v in {**made, **changes}.items() if v is not None}
    return Contents(path=Path("theirs"), arrays=arrays)


def bring(found: Contents, root: Path, backbone: str = "tiny", **more: Any) -> Any:
    return import_features(lambda: found, root, "mine", backbone, **more)


def test_names_and_templates_are_those_of_the_data_set(tmp_path: Path) -> None:
    listing = bring(contents(), tmp_path, dataset="eurosat").feature_set().listing
    assert listing.classes[:2] == ("Annual Crop Land", "Forest")
    assert listing.templates == ("a centered satellite photo of {}.",)


def test_texts_are_encoded_where_the_weights_are_here(tmp_path: Path) -> None:
    from featcache.backbones.registry import load_backbone

    features = bring(contents(), tmp_path, dataset="eurosat").feature_set()
    assert features.text is not None
    tower = load_backbone("tiny", device="cpu", compute="fp32")
    words = [f"a centered satellite photo of {name}." for name in features.classes]
    wanted = torch.nn.functional.normalize(tower.encode_texts(words), dim=-1)
    assert torch.allclose(features.text.anchors("template"), wanted, atol=1e-3)
    assert features.text.available() == ("name", "template")
    assert features.text.logit_scale == pytest.approx(tower.logit_scale)
    assert any("encoded by tiny" in note for note in features.listing.notes)


@pytest.mark.parametrize("backbone", ["ViT-B/32", "my model"])
def test_without_weights_names_are_stored_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    monkeypatch.setattr("featcache.backbones.weights.find_cached", lambda _: None)
    monkeypatch.setattr("featcache.backbones.weights.fetch", pytest.fail)  # nothing is fetched
    features = bring(contents(512), tmp_path, backbone, dataset="eurosat").feature_set()
    assert features.text is None
    assert features.classes[0] == "Annual Crop Land"
    (note,) = [n for n in features.listing.notes if n.startswith("Class names are stored")]
    assert "not on this machine" in note or "Unknown backbone" in note


def test_an_import_with_encoded_texts_is_whole_the_second_time(tmp_path: Path) -> None:
    first = bring(contents(), tmp_path, dataset="eurosat")
    before = (first.path / "manifest.jsonl").read_bytes()
    said: list[str] = []
    bring(contents(), tmp_path, dataset="eurosat", say=said.append)
    assert said == ["Imported before, and sound: nothing was left to do."]
    assert (first.path / "manifest.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"classes": 9}, r"labels up to 8.*'eurosat' has 10 classes"),
        ({"classes": 11}, r"labels up to 10.*'eurosat' has 10 classes"),
    ],
)
def test_another_number_of_classes_is_refused(tmp_path: Path, changes: Any, why: str) -> None:
    with pytest.raises(ImportedFileError, match=why):
        bring(contents(**changes), tmp_path, dataset="eurosat")


def test_another_number_of_rows_is_refused_with_both(tmp_path: Path) -> None:
    known = replace(known_dataset("eurosat"), counts={"val": (30, 5), "test": (8100,)})
    with pytest.raises(ImportedFileError, match=r"40 rows for test.*'eurosat' has 8100"):
        with_names(contents(), known)
    few = replace(contents(), whole=("val",))  # where the test rows are a draw
    assert with_names(few, known).templates == known.templates
    full = replace(known, counts={"val": (30,), "test": (40,)})
    assert with_names(contents(), full).arrays["classnames"].tolist() == list(known.names)


def test_names_of_the_files_decide_which_label_is_which(tmp_path: Path) -> None:
    known = replace(known_dataset("eurosat"), counts={})
    order = np.random.default_rng(0).permutation(EUROSAT)
    for names in (known.folders, known.names, [n.lower().replace(" ", "_") for n in known.names]):
        theirs = np.array([names[i] for i in order])
        text = rows(EUROSAT, 7, width=128)
        found = with_names(contents(classnames=theirs, text_features=text), known)
        given = contents().arrays["test_labels"]
        assert found.arrays["test_labels"].tolist() == order[given].tolist()
        np.testing.assert_array_equal(found.arrays["text_features"][order], text)
    with pytest.raises(ImportedFileError, match=r"does not have: Moon \(1 of 10\)"):
        with_names(contents(classnames=np.array([*known.names[:-1], "Moon"])), known)


def test_names_that_repeat_keep_their_order() -> None:
    """ImageNet has two missiles: only the whole list in its order is plain."""
    known = Known(name="toys", names=("missile", "tench", "missile"))
    theirs = np.array(["missile", "tench", "missile"])
    found = with_names(contents(classes=3, classnames=theirs), known)
    assert found.arrays["train2_labels"].tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ImportedFileError, match="two classes by one name"):
        with_names(contents(classes=3, classnames=theirs[[0, 2, 1]]), known)


def test_an_unknown_data_set_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"data set 'eurosta'.*eurosat"):
        import_features(pytest.fail, tmp_path, "mine", "tiny", dataset="eurosta")


@pytest.mark.parametrize("kind", ["rows.npy", "columns.pt", "sentences.pth"])
def test_texts_of_a_file_are_the_classes_vectors(tmp_path: Path, kind: str) -> None:
    text = rows(EUROSAT, 5, width=128, dtype=np.float32)
    path = tmp_path / kind
    if kind == "rows.npy":
        np.save(path, text)
    elif kind == "columns.pt":  # Tip-Adapter's clip_weights are [d, C]
        save(path, tensor(text).t())
    else:
        names = {i: f"thing {i}" for i in range(EUROSAT)}
        twice = {"features": 3 * tensor(text).repeat(2, 1), "labels": torch.arange(20) % EUROSAT}
        save(path, {**twice, "lab2cname": names, "prompts": ["a"] * 20})
    features = bring(contents(), tmp_path / "root", texts=path).feature_set()
    assert features.text is not None
    assert torch.allclose(features.text.anchors(), torch.from_numpy(text), atol=1e-6)
    assert (features.classes[3] == "thing 3") == (kind == "sentences.pth")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.ones(10, 64), r"one vector of 128 numbers a class"),
        (torch.ones(9, 128), r"one row for each of the 10 classes"),
        (torch.ones(128, 128), r"classes from the width"),
        ({"features": torch.ones(3, 128)}, r"dict with features, labels"),
        ({"features": torch.ones(3, 128), "labels": torch.tensor([0, 2, 2])}, "2 of 3 classes"),
        ([1], "should hold a tensor as class vectors, got a value of type list"),
    ],
)
def test_texts_that_do_not_fit_are_refused(tmp_path: Path, value: Any, why: str) -> None:
    with pytest.raises(ImportedFileError, match=why):
        bring(contents(), tmp_path / "root", texts=save(tmp_path / "t.pt", value))
