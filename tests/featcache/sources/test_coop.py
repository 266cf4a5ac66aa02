"""CoOp's split files: order kept, and damaged or hostile ones refused."""

import json
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.sources.coop import read_split_file

SPLITS = Path(__file__).parents[4] / "shared" / "data" / "splits"

GOOD = {
    "train": [["b/2.jpg", 1, "big_cat"], ["a/1.jpg", 0, "ant"]],
    "val": [],
    "test": [["a/9.jpg", 0, "ant"]],
}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "split_zhou_Toy.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_order_and_names(tmp_path: Path) -> None:
    split = read_split_file(write(tmp_path, GOOD))
    assert split.classes == ("ant", "big cat")
    assert split.splits["train"] == (("b/2.jpg", 1), ("a/1.jpg", 0))
    assert split.splits["val"] == ()


def test_two_labels_may_have_one_name(tmp_path: Path) -> None:
    content = {"train": [["a.jpg", 0, "missile"], ["b.jpg", 1, "missile"]]}
    assert read_split_file(write(tmp_path, content)).classes == ("missile", "missile")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([["a.jpg", 0]], r"train\[0\] is not"),
        ([["a.jpg", True, "a"]], r"train\[0\] is not"),
        ([["a.jpg", "0", "a"]], r"train\[0\] is not"),
        ([["../a.jpg", 0, "a"]], "outside the folder"),
        ([["/etc/a.jpg", 0, "a"]], "outside the folder"),
        ([["a\\..\\b.jpg", 0, "a"]], "outside the folder"),
        ([["a\n.jpg", 0, "a"]], "outside the folder"),
        ([["", 0, "a"]], "outside the folder"),
        ([["a.jpg", 0, "a"], ["a.jpg", 0, "a"]], "a.jpg is listed twice"),
        ([["a.jpg", 0, "a"], ["b.jpg", 0, "b"]], "label 0 is both 'a' and 'b'"),
        ([["a.jpg", 1, "a"]], "labels are not 0 to 0"),
        ([["a.jpg", 0, " "]], "label 0 has no name"),
        ("all of it", "'train' is no list"),
    ],
)
def test_what_is_not_of_the_form_is_refused(tmp_path: Path, train: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_split_file(write(tmp_path, {"train": train}))


@pytest.mark.parametrize(
    "text", ["", json.dumps(GOOD)[:-30], "[" * 100_000, "[]", "{}", "\x00\xff"]
)
def test_truncated_and_foreign_files_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"split_zhou_Toy\.json"):
        read_split_file(write(tmp_path, text))


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="listed twice"):
        read_split_file(write(tmp_path, {**GOOD, "val": GOOD["test"]}))


def test_the_published_files_are_read_whole() -> None:
    if not SPLITS.is_dir():
        pytest.skip(f"{SPLITS} is not there")
    split = read_split_file(SPLITS / "split_zhou_EuroSAT.json")
    assert [len(split.splits[s]) for s in ("train", "val", "test")] == [13500, 5400, 8100]
    assert split.classes[0] == "Annual Crop Land"
    assert "american bulldog" in read_split_file(SPLITS / "split_zhou_OxfordPets.json").classes
