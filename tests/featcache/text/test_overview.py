"""Counts, duplicates and lengths of texts, and their way to a file and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.errors import UnknownNameError, UsageError
from featcache.sources.base import Dataset
from featcache.text.descriptions import match_descriptions, read_descriptions
from featcache.text.encode import with_texts
from featcache.text.export import export_texts
from featcache.text.named import named_texts
from featcache.text.overview import overview
from featcache.text.templates import read_templates

DATA = Dataset(
    name="toy",
    root=Path(),
    classes=("red fox", "owl", "newt", "owl"),
    samples=(),
    templates=("a photo of a {}.",),
    descriptions={
        "newt": ("wet skin and a tail.", "wet skin and a tail.", "four legs."),
        "red fox": ("four legs.",),
    },
    sets={"dclip": {"newt": ("newt, which has a tail.",)}},
)


def test_duplicates_lengths_and_classes_without_are_counted() -> None:
    name, template, described, dclip = overview(DATA, lambda texts: sum(len(t) > 12 for t in texts))
    assert (name.kind, name.texts, name.classes, name.without) == ("name", 4, 4, ())
    assert name.shared == ("owl",)  # two classes of one name
    assert (template.fewest_words, template.median_words, template.most_words) == (5, 5.0, 6)
    assert template.cut == 4
    assert (described.texts, described.classes, described.repeated) == (4, 2, 1)
    assert described.without == ("owl", "owl")
    assert described.shared == ("four legs.",)
    assert (described.fewest_words, described.median_words, described.most_words) == (2, 3.5, 5)
    assert (dclip.kind, dclip.texts) == ("dclip", 1)
    assert overview(DATA)[0].cut is None


def test_texts_go_to_a_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    assert export_texts(DATA, "toy", "description", path) == 4
    written = json.loads(path.read_text())
    assert list(written["descriptions"]) == ["red fox", "owl", "newt"]
    assert written["descriptions"]["owl"] == []
    bare = replace(DATA, descriptions={})
    assert with_texts(bare, descriptions=path).descriptions == {
        "red fox": ("four legs.",),
        "newt": ("wet skin and a tail.", "four legs."),  # equal ones count once
    }
    assert export_texts(DATA, "toy", "dclip", tmp_path / "p.json") == 1
    again = with_texts(replace(DATA, sets={}), dclip=tmp_path / "p.json")
    assert again.sets["dclip"] == DATA.sets["dclip"]
    assert export_texts(DATA, "toy", "template", tmp_path / "t.txt") == 1
    assert read_templates(tmp_path / "t.txt") == DATA.templates


def test_prompts_are_of_no_class(tmp_path: Path) -> None:
    data = replace(DATA, prompts=("a red hat.", "a street."))
    prompts = overview(data)[-1]
    assert (prompts.kind, prompts.texts, prompts.classes) == ("prompt", 2, 0)
    assert (prompts.without, prompts.repeated, prompts.shared) == ((), 0, ())
    assert export_texts(data, "toy", "prompt", tmp_path / "p.txt") == 2
    assert with_texts(DATA, prompts=tmp_path / "p.txt").prompts == data.prompts
    with pytest.raises(UsageError, match="has no texts of kind 'prompt'"):
        export_texts(DATA, "toy", "prompt", tmp_path / "q.txt")


def test_texts_of_a_named_data_set_keep_their_author(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    words = named_texts("eurosat")
    export_texts(words, "eurosat", "description", path)
    written = json.loads(path.read_text())
    assert written["author"] == "The featcache authors"
    assert read_descriptions(path) == words.descriptions
    changed = {**words.descriptions, "Forest": ("a photo of many green crowns.",)}
    export_texts(replace(words, descriptions=changed), "eurosat", "description", tmp_path / "f")
    assert json.loads((tmp_path / "f").read_text())["author"] == "unknown"


def test_wrong_exports(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        export_texts(DATA, "toy", "description", path)
    with pytest.raises(UsageError, match="no folder"):
        export_texts(DATA, "toy", "description", tmp_path / "no" / "d.json")
    with pytest.raises(UnknownNameError, match="did you mean 'description'"):
        export_texts(DATA, "toy", "descriptions", tmp_path / "new.json")
    assert path.read_text() == "mine"
    odd = replace(DATA, classes=("a\udcff",))
    with pytest.raises(UsageError, match=r"The class 'a\\udcff' has control characters"):
        export_texts(odd, "toy", "description", tmp_path / "new.json")


def test_names_that_nearly_fit_are_suggested() -> None:
    _, notes = match_descriptions(
        {"red fxo": ["fur."], "owl": ["eyes."], "zzz": ["x."]}, DATA.classes
    )
    assert notes[-1] == (
        "Descriptions of no class here: 'red fxo', 'zzz'. Did you mean 'red fox' for 'red fxo'?"
    )


def test_a_class_named_descriptions_is_a_class(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"descriptions": ["a list of words."], "author": ["a person."]}')
    assert read_descriptions(path)["author"] == ("a person.",)
