"""FiftyOne's classification data sets: labels by index, by name, with a confidence, or null."""

import json
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.sources.layouts.own.fiftyone import open_fiftyone


def make(root: Path, labels: object, files: tuple[str, ...] = ("a.jpg", "b.png", "c.jpg")) -> str:
    for file in files:
        (root / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / file).write_bytes(file.encode())
    (root / "labels.json").write_text(labels if isinstance(labels, str) else json.dumps(labels))
    return str(root)


def labels_of(path: str) -> dict[str, str]:
    data = open_fiftyone(path, {})
    return {s.id: data.classes[s.label] if s.label >= 0 else "" for s in data.samples}


def test_labels_are_indices(tmp_path: Path) -> None:
    path = make(tmp_path, {"classes": ["dog", "cat"], "labels": {"a": 1, "b": 0, "c": None}})
    assert open_fiftyone(path, {}).classes == ("dog", "cat")
    assert labels_of(path) == {"data/a.jpg": "cat", "data/b.png": "dog", "data/c.jpg": ""}


def test_labels_are_names(tmp_path: Path) -> None:
    path = make(
        tmp_path, {"classes": None, "labels": {"a": "cat", "b": {"label": "3", "confidence": 1}}}
    )
    assert labels_of(path) == {"data/a.jpg": "cat", "data/b.png": "3"}
    path = make(tmp_path, {"classes": ["dog", "cat"], "labels": {"a": "cat", "b": "dog"}})
    assert open_fiftyone(path, {}).classes == ("dog", "cat")


def test_missing_images_are_said(tmp_path: Path) -> None:
    path = make(tmp_path, {"classes": ["dog", "cat"], "labels": {"a": 1, "x": 0}})
    assert any("the first is x" in note for note in open_fiftyone(path, {}).notes)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"classes": ["dog"], "labels": {"a": 1}}, "none of the 1 class names"),
        ({"classes": ["dog"], "labels": {"a": "cat"}}, "none of its classes"),
        ({"classes": ["dog"], "labels": {"a": [0]}}, "multi-label"),
        ({"classes": ["dog"], "labels": {"a": 0.5}}, "float"),
        ({"classes": [1], "labels": {"a": 0}}, "no list of names"),
        ({"classes": ["dog"]}, "no 'labels'"),
        ({"classes": ["dog"], "labels": {}}, "lists no image"),
        ({"classes": ["dog"], "labels": {"x": 0}}, "None of the 1 images"),
        ({"classes": ["dog"], "labels": {"a": None}}, "no label for any"),
        ([], "no 'labels'"),
        ("{", "could not be read as JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_refused(tmp_path: Path, labels: object, expected: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_fiftyone(make(tmp_path, labels), {})
    assert expected in str(caught.value)


def test_two_files_of_one_stem(tmp_path: Path) -> None:
    path = make(tmp_path, {"classes": ["dog"], "labels": {"a": 0}}, ("a.jpg", "a.png"))
    with pytest.raises(SourceError, match=r"both a\.jpg and a\.png"):
        open_fiftyone(path, {})


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no data set of FiftyOne"):
        open_fiftyone(str(tmp_path), {})


@pytest.mark.parametrize("linked", ["data", "labels.json"])
def test_no_link_out_of_the_folder_is_followed(tmp_path: Path, linked: str) -> None:
    inside, outside = tmp_path / "mine", tmp_path / "secret"
    for folder in (inside, outside):
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "a.jpg").write_bytes(folder.name.encode())
        (folder / "labels.json").write_text('{"classes": ["x", "y"], "labels": {"a": 0}}')
    (inside / linked).rename(tmp_path / "gone")
    (inside / linked).symlink_to(outside / linked)
    with pytest.raises(SourceError):
        open_fiftyone(str(inside), {})
