"""COCO files: one category an image, ids that are not contiguous, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import SourceError
from featcache.sources.layouts.own.coco import open_coco


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())


def content() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg"},
            {"id": 3, "file_name": "sub/a.jpg"},
            {"id": 9, "file_name": "c.jpg"},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1]},
            {"id": 2, "image_id": 7, "category_id": 18},
            {"id": 3, "image_id": 3, "category_id": 4},
        ],
    }


def write(root: Path, value: object, name: str = "ann.json") -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(value))
    return str(root / name)


def test_an_image_has_its_one_category(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "sub/a.jpg", "c.jpg")
    data = open_coco(write(tmp_path, content()), {})
    assert data.classes == ("cat", "dog")
    assert {s.id: s.label for s in data.samples} == {"b.jpg": 1, "sub/a.jpg": 0, "c.jpg": -1}
    assert data.name == "ann"
    assert any("1 image of ann.json without a label" in note for note in data.notes)


def test_images_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "images/b.jpg", "images/sub/a.jpg")
    path = write(tmp_path, content(), "annotations/ann.json")
    with pytest.raises(SourceError, match="None of the 3 images") as caught:
        open_coco(path, {})
    assert f"coco:{path}?root=FOLDER" in str(caught.value)
    data = open_coco(path, {"root": str(tmp_path / "images")})
    assert len(data.samples) == 2
    assert any("1 images that ann.json lists are not there" in note for note in data.notes)


def test_roboflow_folders_are_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/b.jpg", "train/sub/a.jpg", "valid/b.jpg", "valid/sub/a.jpg")
    write(tmp_path, content(), "train/_annotations.coco.json")
    write(tmp_path, content(), "valid/_annotations.coco.json")
    data = open_coco(str(tmp_path), {})
    assert {(s.id, s.split) for s in data.samples} >= {
        ("train/b.jpg", "train"),
        ("valid/b.jpg", "val"),
    }
    assert data.name == tmp_path.name


def change(key: str, index: int, **fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda value: value[key][index].update(fields)


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (change("annotations", 1, category_id=4), "the categories 'dog' and 'cat'"),
        (change("annotations", 1, category_id=5), "unknown category 5"),
        (change("annotations", 1, image_id=5), "image 5, which is not in images"),
        (change("annotations", 1, image_id=None), "annotations[1] has no image_id"),
        (change("categories", 1, id=18), "categories[1]"),
        (change("categories", 1, name=3), "categories[1]"),
        (change("images", 1, id=7), "images[1]"),
        (change("images", 1, file_name="/etc/x.jpg"), "outside"),
        (change("images", 1, file_name="../x.jpg"), "outside"),
        (change("images", 1, file_name=""), "names no file"),
        (lambda value: value.pop("images"), "no list 'images'"),
        (lambda value: value.update(annotations=[]), "no label for any"),
        (lambda value: value.update(images=[], annotations=[]), "lists no image"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, break_it: Callable[[dict[str, Any]], None], expected: str
) -> None:
    touch(tmp_path, "b.jpg", "sub/a.jpg", "c.jpg")
    value = content()
    break_it(value)
    with pytest.raises(SourceError) as caught:
        open_coco(write(tmp_path, value), {})
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"images": 1}', "\0", "NaN"])
def test_broken_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "ann.json").write_text(text)
    with pytest.raises(SourceError, match=r"ann\.json"):
        open_coco(str(tmp_path / "ann.json"), {})


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there"):
        open_coco(str(tmp_path / "x.json"), {})
    with pytest.raises(SourceError, match=r"without train/_annotations\.coco\.json"):
        open_coco(str(tmp_path), {})


def test_two_categories_of_one_name_are_two_classes(tmp_path: Path) -> None:
    value = content()
    value["categories"] = [{"id": 18, "name": "crane"}, {"id": 4, "name": "crane"}]
    touch(tmp_path, "b.jpg", "sub/a.jpg", "c.jpg")
    (tmp_path / "list.json").write_text(json.dumps(value))
    try:
        classes = open_coco(str(tmp_path / "list.json"), {}).classes
    except SourceError:
        return
    assert len(classes) == 2


def test_a_second_category_of_a_name_may_have_no_image(tmp_path: Path) -> None:
    value = content()
    touch(tmp_path, "b.jpg", "sub/a.jpg", "c.jpg")
    (tmp_path / "list.json").write_text(json.dumps(value))
    classes = open_coco(str(tmp_path / "list.json"), {}).classes
    value["categories"].append({"id": 99, "name": value["categories"][0]["name"]})
    (tmp_path / "list.json").write_text(json.dumps(value))
    assert open_coco(str(tmp_path / "list.json"), {}).classes == classes
