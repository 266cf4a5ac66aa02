"""Exports of Label Studio: both forms, names as the server had them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import SourceError
from featcache.sources.layouts.own.labelstudio import open_labelstudio


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())


def task(image: str, *choices: str, **more: object) -> dict[str, Any]:
    result = [{"type": "choices", "from_name": "kind", "value": {"choices": list(choices)}}]
    annotations = [{"result": result, "was_cancelled": False}] if choices else []
    return {"data": {"image": image}, "annotations": annotations, **more}


def write(root: Path, value: object) -> str:
    (root / "export.json").write_text(json.dumps(value))
    return str(root / "export.json")


def labels(path: str, **options: str) -> dict[str, str]:
    data = open_labelstudio(path, options)
    return {s.id: data.classes[s.label] if s.label >= 0 else "" for s in data.samples}


def refusal(path: str, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        open_labelstudio(path, options)
    return str(caught.value)


def test_files_are_found_by_path_name_or_name_without_prefix(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b c.jpg", "01234567-c.jpg", "d.jpg", "e.jpg")
    tasks = [
        task("/data/upload/1/3f2a9c1e-a.jpg", "cat"),
        task("/data/local-files/?d=photos/b%20c.jpg", "dog"),
        task("/data/upload/1/01234567-c.jpg", "cat"),
        task("https://host/x/d.jpg?token=1", "dog"),
        task("e.jpg"),
    ]
    assert labels(write(tmp_path, tasks)) == {
        "a.jpg": "cat",
        "sub/b c.jpg": "dog",
        "01234567-c.jpg": "cat",
        "d.jpg": "dog",
        "e.jpg": "",
    }


def test_json_min(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    tasks: list[dict[str, Any]] = [
        {"image": "/data/upload/1/3f2a9c1e-a.jpg", "id": 1, "choice": "1", "annotator": 2},
        {"image": "b.jpg", "id": 2, "choice": "unsure", "lead_time": 3.5},
        {"image": "c.jpg", "id": 3},
    ]
    assert labels(write(tmp_path, tasks)) == {"a.jpg": "1", "b.jpg": "unsure", "c.jpg": ""}
    tasks[0] = {"image": "a.jpg", "kind": "cat", "mood": "calm"}
    path = write(tmp_path, tasks)
    assert f"labelstudio:{path}?label=kind" in refusal(path)
    tasks[1] = {"image": "b.jpg", "kind": "dog", "mood": "wild"}
    assert labels(write(tmp_path, tasks), label="kind")["b.jpg"] == "dog"


def test_cancelled_annotations_do_not_count(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    one = task("a.jpg", "cat")
    other = task("a.jpg", "dog")["annotations"][0] | {"was_cancelled": True}
    one["annotations"].append(other)
    assert labels(write(tmp_path, [one])) == {"a.jpg": "cat"}
    other["was_cancelled"] = False
    assert "Annotators of task 1" in refusal(write(tmp_path, [one]))


def test_several_choices_of_one_annotation(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    one = task("a.jpg", "cat")
    more = {"type": "choices", "from_name": "mood", "value": {"choices": ["calm"]}}
    one["annotations"][0]["result"].append(more)
    path = write(tmp_path, [one])
    assert f"labelstudio:{path}?label=kind" in refusal(path)
    assert labels(path, label="mood") == {"a.jpg": "calm"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([task("a.jpg", "cat", "dog")], "2 choices"),
        ([{"image": "a.jpg", "choice": {"choices": ["cat", "dog"]}}], "2 choices"),
        ([{"image": "a.jpg", "choice": ["cat"]}], "a list"),
        ([{"image": "a.jpg", "choice": 0.5}], "float"),
        ([{"text": "hello", "choice": "x"}], "no image"),
        ([{"image": "a.jpg", "second": "b.jpg", "choice": "x"}], "several images (image, second)"),
        ([task("a.jpg")], "no label for any"),
        ([task("x.jpg", "cat")], "None of the 1 images"),
        ([task("c.jpg", "cat")], "several files are called c.jpg"),
        ([task("a.jpg", "cat"), task("a.jpg", "dog")], "'cat' (task 1) and 'dog' (task 2)"),
        ([1], "Task 1"),
        ([], "no list of tasks"),
        ({"a": 1}, "no list of tasks"),
    ],
)
def test_what_is_refused(tmp_path: Path, value: object, expected: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "1/c.jpg", "2/c.jpg")
    assert expected in refusal(write(tmp_path, value))


def test_the_images_lie_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg")
    (tmp_path / "out").mkdir()
    path = write(tmp_path / "out", [task("a.jpg", "cat"), task("gone.jpg", "cat")])
    assert f"labelstudio:{path}?root=FOLDER" in refusal(path)
    data = open_labelstudio(path, {"root": str(tmp_path / "images")})
    assert [s.id for s in data.samples] == ["a.jpg"]
    assert any("the first is gone.jpg" in note for note in data.notes)


@pytest.mark.parametrize("annotations", [5, True, [{"result": 5}], [{"result": True}]], ids=str)
def test_annotations_that_are_no_list_are_refused(tmp_path: Path, annotations: object) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    value = [{"data": {"image": "a.jpg"}, "annotations": annotations}]
    (tmp_path / "list.json").write_text(json.dumps(value))
    with pytest.raises(SourceError):
        open_labelstudio(str(tmp_path / "list.json"), {})


def test_two_uploads_are_never_one_file(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"a")
    (tmp_path / "dog.jpg").write_bytes(b"b")
    images = ("upload/1/3f2a9c1e-cat.jpg", "upload/2/aaaaaaaa-cat.jpg", "upload/1/bbbbbbbb-dog.jpg")
    value = [{"image": f"/data/{image}", "choice": "xxy"[i]} for i, image in enumerate(images)]
    (tmp_path / "list.json").write_text(json.dumps(value))
    with pytest.raises(SourceError):
        open_labelstudio(str(tmp_path / "list.json"), {})


def test_a_file_of_another_name_than_asked_for_may_be_asked_for_twice(tmp_path: Path) -> None:
    touch(tmp_path, "cat.jpg", "dog.jpg")
    images = ["/data/upload/1/3f2a9c1e-cat.jpg", "/data/upload/1/bbbbbbbb-dog.jpg"]
    value = [{"image": image, "choice": "xyx"[i]} for i, image in enumerate([*images, images[0]])]
    data = open_labelstudio(write(tmp_path, value), {})
    assert [s.id for s in data.samples] == ["cat.jpg", "dog.jpg"]


def test_notes_are_escaped(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    path = write(tmp_path, [task("a.jpg", "cat"), task("gone\x1b[2J\n.jpg", "cat")])
    (note,) = (n for n in open_labelstudio(path, {}).notes if "are not there" in n)
    assert r"the first is gone\x1b[2J\n.jpg" in note
