"""Descriptor files: matching by name, sentences, and files that are none."""

from pathlib import Path

import pytest

from featcache.errors import UsageError
from featcache.text.descriptions import match_descriptions, read_descriptions, sentence

DESCRIPTORS = Path(__file__).parents[4] / "shared" / "data" / "descriptions" / "descriptors"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "d.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("descriptor", "expected"),
    [
        ("long ears", "hare, which has long ears."),
        ("a fast animal", "hare, which is a fast animal."),
        ("an eater of grass", "hare, which is an eater of grass."),
        ("antennae", "hare, which has antennae."),
        ("has long ears", "hare, which has long ears."),
        ("often brown", "hare, which often brown."),
        ("used as food", "hare, which is used as food."),
        ("It sits in a field.", "It sits in a field."),
    ],
)
def test_phrases_become_sentences(descriptor: str, expected: str) -> None:
    assert sentence("hare", descriptor) == expected


def test_names_match_whatever_their_case_and_underscores(tmp_path: Path) -> None:
    found = read_descriptions(write(tmp_path, '{"HOT_dog": ["a bun.", "", "a bun."], "x": []}'))
    matched, notes = match_descriptions(found, ("hot dog", "X", "cat"))
    assert matched == {"hot dog": ("a bun.",)}
    assert notes == ["No descriptions for 'X', 'cat'."]


def test_extra_classes_are_named() -> None:
    _, notes = match_descriptions({"a": ["b"], "ghost": ["c"]}, ("a",))
    assert notes == ["Descriptions of no class here: 'ghost'."]


def test_no_class_in_common_and_one_class_twice_are_errors() -> None:
    with pytest.raises(UsageError, match=r"'ghost'.*'a'"):
        match_descriptions({"ghost": ["c"]}, ("a",))
    with pytest.raises(UsageError, match="the file names 'a' with empty lists"):
        match_descriptions({"A": [], "ghost": ["c"]}, ("a",))
    with pytest.raises(UsageError, match="one class"):
        match_descriptions({"a_b": ["c"], "A b": ["d"]}, ("a b",))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"a": "b"}', '{"a": [1]}', '{"a": 1, "a": 2}', '{"a": ["b"]', "[" * 99999],
)
def test_what_is_not_of_the_form_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"d\.json"):
        read_descriptions(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "classes"),
    [("cub", 200), ("dtd", 47), ("eurosat", 10), ("food101", 101), ("imagenet", 1000),
     ("pets", 37), ("places365", 365)],
)  # fmt: skip
def test_the_published_files(name: str, classes: int) -> None:
    path = DESCRIPTORS / f"descriptors_{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    found = read_descriptions(path)
    assert len(found) == classes
    described = [c for c in found if found[c]]
    matched, notes = match_descriptions(found, [c.upper().replace(" ", "_") for c in described])
    assert len(matched) == len(described)
    assert len(notes) == (len(described) < classes)


@pytest.mark.parametrize("argument", ["descriptions", "cupl", "dclip"])
@pytest.mark.parametrize("content", ["[", "[]", '{"ant": "legs"}', '{"ant": ["a\\u0007b"]}'])
def test_a_bad_file_is_named_with_its_argument(tmp_path: Path, content: str, argument: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        read_descriptions(path, argument)
    assert str(caught.value).startswith(f"{argument}='{path}'")
