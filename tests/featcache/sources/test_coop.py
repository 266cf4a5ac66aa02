"""CoOp's split files: order kept, and damaged or hostile ones refused."""

import json
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.sources.layouts.named.coop import CoopSplit, parse_split

SPLITS = Path(__file__).parents[4] / "shared" / "data" / "splits"

GOOD = {
    "train": [["b/2.jpg", 1, "big_cat"], ["a/1.jpg", 0, "ant"]],
    "val": [],
    "test": [["a/9.jpg", 0, "ant"]],
}


def read(content: object) -> CoopSplit:
    text = content if isinstance(content, str) else json.dumps(content)
    return parse_split(text.encode(), "split_zhou_Toy.json")


def published(name: str) -> CoopSplit:
    return parse_split((SPLITS / name).read_bytes(), name)


def test_order_and_names() -> None:
    split = read(GOOD)
    assert split.classes == ("ant", "big cat")
    assert split.splits["train"] == (("b/2.jpg", 1), ("a/1.jpg", 0))
    assert split.splits["val"] == ()


def test_two_labels_may_have_one_name() -> None:
    content = {"train": [["a.jpg", 0, "missile"], ["b.jpg", 1, "missile"]]}
    assert read(content).classes == (
        "missile",
        "missile",
    )


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
def test_what_is_not_of_the_form_is_refused(train: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read({"train": train})


@pytest.mark.parametrize(
    "text", ["", json.dumps(GOOD)[:-30], "[" * 100_000, "[]", "{}", "\x00\xff"]
)
def test_truncated_and_foreign_files_are_refused(text: str) -> None:
    with pytest.raises(SourceError, match=r"split_zhou_Toy\.json"):
        read(text)


def test_an_image_in_two_splits_is_refused() -> None:
    with pytest.raises(SourceError, match="listed twice"):
        read({**GOOD, "val": GOOD["test"]})


def test_the_published_files_are_read_whole() -> None:
    if not SPLITS.is_dir():
        pytest.skip(f"{SPLITS} is not there")
    split = published("split_zhou_EuroSAT.json")
    assert [len(split.splits[s]) for s in ("train", "val", "test")] == [13500, 5400, 8100]
    assert split.classes[0] == "Annual Crop Land"
    assert "american bulldog" in published("split_zhou_OxfordPets.json").classes
