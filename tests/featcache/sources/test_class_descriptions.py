"""Descriptions of named data sets: every file keeps the rules, and a malformed one is named."""

import json
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import SourceError
from featcache.sources.descriptions import NONE, class_descriptions, read_json
from featcache.sources.named import find
from featcache.sources.named_open import open_named
from featcache.text.naming import given_away, words_of
from featcache.text.templates import clean_name, is_plain
from tests.featcache.sources.miniatures import MINIATURES

FOLDER = resources.files("featcache.sources.descriptions")
WRITTEN = sorted(f.name.removesuffix(".json") for f in FOLDER.iterdir() if f.name.endswith(".json"))

GENERIC: dict[str, set[str]] = {}
"""Data set -> words of its class names that its sentences cannot do without, and that point at no
one class."""

GOOD = {
    "author": "A. Writer",
    "method": "Written by hand.",
    "licence": "MIT",
    "descriptions": {"owl": ["a photo of a bird with round eyes."]},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_class_is_described_in_label_order(name: str) -> None:
    names = dict.fromkeys(map(clean_name, find(name).table().names))
    assert list(find(name).descriptions) == list(names)


@pytest.mark.parametrize("name", WRITTEN)
def test_author_method_and_licence_are_named(name: str) -> None:
    written = class_descriptions(name)
    assert written.author.strip()
    assert written.method.endswith(".")
    assert written.licence == "MIT"


@pytest.mark.parametrize("name", WRITTEN)
def test_sentences_are_short_plain_and_their_own(name: str) -> None:
    written = class_descriptions(name).descriptions
    assert [c for c, sentences in written.items() if not 4 <= len(sentences) <= 8] == []
    every = [sentence for sentences in written.values() for sentence in sentences]
    counts = Counter(" ".join(words_of(sentence)) for sentence in every)
    assert [sentence for sentence, count in counts.items() if count > 1] == []
    assert [s for s in every if not 5 <= len(s.split()) < 20] == []
    assert [s for s in every if not is_plain(s) or s != " ".join(s.split())] == []
    assert [s for s in every if not s.endswith(".") or "{" in s] == []


@pytest.mark.parametrize("name", WRITTEN)
def test_no_sentence_gives_its_class_away(name: str) -> None:
    generic = GENERIC.get(name, set())
    found = [
        (class_, sentence, given)
        for class_, sentences in class_descriptions(name).descriptions.items()
        for sentence in sentences
        if (given := given_away(class_, sentence, generic))
    ]
    assert found == []


def test_where_there_is_no_file_there_are_none() -> None:
    assert class_descriptions("no such") is NONE
    assert find("imagenet_v2").descriptions == {}


@pytest.mark.parametrize("name", sorted({m.dataset for m in MINIATURES} & {*WRITTEN}))
def test_a_data_set_brings_them_under_the_names_in_use(name: str, tmp_path: Path) -> None:
    next(m for m in MINIATURES if m.dataset == name).write(tmp_path)
    spec = find(name)
    for words in spec.templates:
        data = open_named(spec, tmp_path, download=False, words=words)
        assert set(data.descriptions) == set(data.classes)
        for label, own in enumerate(map(clean_name, spec.table().names)):
            assert data.descriptions[data.classes[label]] == spec.descriptions[own]


def test_a_drawn_world_has_those_of_its_own() -> None:
    assert len(find("fieldguide-2").descriptions) == 24


def test_a_good_file_is_read() -> None:
    written = read_json("owls", json.dumps(GOOD).encode())
    assert written.descriptions == {"owl": ("a photo of a bird with round eyes.",)}
    assert written.summary() == "1 a class, by A. Writer, licence MIT. Written by hand."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"autor": "x"}, "unknown key 'autor'"),
        ({"author": 3}, "author: expected str, got 3"),
        ({"descriptions": {"owl": "round eyes."}}, r"descriptions\.owl: expected .*'round eyes\.'"),
        ({"descriptions": {"owl": [None]}}, r"descriptions\.owl\[0\]: expected str, got None"),
        ({"descriptions": {"owl": []}}, "expected sentences for 'owl'"),
        ({"descriptions": {"owl": [" "]}}, "expected sentences for 'owl'"),
    ],
)
def test_a_wrong_value_names_file_and_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=rf"descriptions/owls\.json: .*{message}"):
        read_json("owls", json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_missing_key_is_named(key: str) -> None:
    less = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(SourceError, match=rf"owls\.json: the key '{key}' is missing"):
        read_json("owls", json.dumps(less).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "expected an object, got list"),
        (b'{"licence": "MIT", "licence": "MIT"}', "'licence' stands there twice"),
    ],
)
def test_what_is_no_object_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=rf"descriptions/owls\.json.*{message}"):
        read_json("owls", content)
