"""From a data set's words to a TextBank, with a text tower made of letters."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.backbones.registry import load_backbone
from featcache.errors import UsageError
from featcache.keys import Listing
from featcache.sources.base import Dataset
from featcache.text.encode import BATCH, encode_texts, keep_own_texts, texts_of, with_texts
from featcache.text.stored import rows_by_text

LETTERS = "abcdefghijklmnopqrstuvwxyz .,"


@dataclass
class Letters:
    """Encodes a sentence as its counts of letters."""

    logit_scale: float = 50.0
    logit_bias: float = -2.0
    tokenizer: str = ""
    seen: list[str] = field(default_factory=list)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.seen += texts
        return torch.tensor([[float(t.count(c)) for c in LETTERS] for t in texts])


DATA = Dataset(
    name="toy",
    root=Path(),
    classes=("red fox", "owl", "newt"),
    samples=(),
    templates=("a {}.", "{}"),
    descriptions={"newt": ("wet skin.", "a tail."), "red fox": ("a tail.",)},
    default_text="name",
)


def counts(text: str) -> list[float]:
    return [float(text.count(c)) for c in LETTERS]


def test_every_row_is_the_sentence_it_says() -> None:
    bank = encode_texts(DATA, Letters())
    assert bank.classes == DATA.classes
    assert bank.names is not None
    assert bank.names.tolist() == [counts(c) for c in DATA.classes]
    assert bank.template_rows is not None
    assert bank.template_rows[1].tolist() == [counts("a owl."), counts("owl")]
    assert bank.descriptions == ("a tail.", "wet skin.", "a tail.")
    assert bank.owner is not None
    assert bank.owner.tolist() == [0, 2, 2]
    assert bank.description_rows is not None
    assert bank.description_rows.tolist() == [counts(d) for d in bank.descriptions]
    assert (bank.logit_scale, bank.logit_bias, bank.default) == (50.0, -2.0, "name")
    assert bank.available() == ("name", "template")


def test_each_sentence_is_encoded_once_and_progress_told() -> None:
    backbone, told = Letters(), list[tuple[str, int, int]]()
    encode_texts(DATA, backbone, lambda *call: told.append(call))
    distinct = texts_of(DATA).distinct()
    assert backbone.seen == distinct + [distinct[0]] * (BATCH - len(distinct))
    assert told == [("encoding texts", len(distinct), len(distinct))]


def test_known_sentences_are_not_encoded() -> None:
    backbone, told = Letters(), list[tuple[str, int, int]]()
    known = {text: torch.full((len(LETTERS),), 7.0) for text in ("owl", "a tail.", "unused")}
    bank = encode_texts(DATA, backbone, lambda *call: told.append(call), known=known)
    assert set(backbone.seen) == set(texts_of(DATA).distinct()) - set(known)
    assert told[-1][1:] == (6, 6)
    assert bank.names is not None
    assert bank.names[1].tolist() == [7.0] * len(LETTERS)
    assert bank.names[2].tolist() == counts("newt")


def test_rows_of_a_bank_are_found_by_sentence() -> None:
    bank = encode_texts(replace(DATA, sets={"cupl": {"owl": ("It hoots.",)}}), Letters())
    wanted = {"newt", "a red fox.", "wet skin.", "It hoots.", "nothing"}
    rows = rows_by_text(bank, wanted)
    assert {text: row.tolist() for text, row in rows.items()} == {
        text: counts(text) for text in wanted - {"nothing"}
    }


@pytest.mark.long
def test_a_row_of_the_tower_does_not_depend_on_the_other_sentences() -> None:
    tower = load_backbone("tiny")
    names = tuple(f"{a} {b}" for a in ("red", "blue", "pale") for b in "abcdefghijklmnopqrstuvwxyz")
    every = encode_texts(replace(DATA, classes=names, templates=()), tower).names
    assert every is not None
    for some in (slice(1, 2), slice(3, 6), slice(70, 78)):
        alone = encode_texts(replace(DATA, classes=names[some], templates=()), tower).names
        assert alone is not None
        assert torch.equal(alone, every[some])


def test_without_templates_or_descriptions_there_are_none() -> None:
    bare = Dataset(name="t", root=Path(), classes=("a", "b"), samples=(), templates=())
    bank = encode_texts(bare, Letters())
    assert bank.template_rows is bank.description_rows is bank.owner is None
    assert bank.available() == ("name",)


def test_a_bad_template_of_a_data_set_is_refused() -> None:
    data = Dataset(name="t", root=Path(), classes=("a",), samples=(), templates=("a photo",))
    with pytest.raises(UsageError, match="exactly one"):
        texts_of(data)


def test_the_users_own_words_replace_those_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("art of {}.\n")
    (tmp_path / "d.json").write_text('{"OWL": ["round eyes"], "dodo": ["x"]}')
    data = with_texts(DATA, templates=tmp_path / "t.txt", descriptions=tmp_path / "d.json")
    assert data.templates == ("art of {}.",)
    assert data.descriptions == {"owl": ("owl, which has round eyes.",)}
    assert data.notes == (
        "No descriptions for 'red fox', 'newt'.",
        "Descriptions of no class here: 'dodo'.",
        "2 of 3 classes have no descriptions: lazsl, fair and methods with text=description will "
        "not run until all have some.",
    )
    assert with_texts(DATA) == DATA


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_further_sets_stand_beside_the_descriptions(tmp_path: Path) -> None:
    """DCLIP's phrases go behind the class name, CuPL's sentences name it themselves."""
    data = with_texts(
        DATA,
        cupl=write(tmp_path / "c.json", '{"OWL": ["Owls stare"], "newt": ["It is wet."]}'),
        dclip=write(tmp_path / "d.json", '{"owl": ["round eyes"], "newt": ["a tail."]}'),
        waffle=3,
    )
    assert data.descriptions == DATA.descriptions
    assert data.sets["cupl"] == {"owl": ("Owls stare",), "newt": ("It is wet.",)}
    assert data.sets["dclip"] == {"owl": ("owl, which has round eyes.",), "newt": ("a tail.",)}
    assert data.own_texts == ("cupl", "dclip", "waffle")
    assert data.notes == (
        "No CuPL sentences for 'red fox'.",
        "1 of 3 classes have no CuPL sentences: methods with text=cupl will not run until all "
        "have some.",
        "No DCLIP phrases for 'red fox'.",
        "1 of 3 classes have no DCLIP phrases: methods with text=dclip will not run until all "
        "have some.",
    )
    tower = Letters()
    bank = encode_texts(data, tower)
    assert tower.seen.count("a tail.") == 1  # it is in two sets
    assert bank.descriptions == ("a tail.", "wet skin.", "a tail.")
    assert list(bank.sets) == ["cupl", "dclip", "waffle"]
    assert bank.available() == ("name", "template", "waffle")
    for held in bank.sets.values():
        assert held.rows.tolist() == [counts(t) for t in held.texts]
    assert bank.sets["dclip"].owner.tolist() == [1, 2]
    assert bank.sets["waffle"].owner.tolist() == [0] * 30 + [1] * 30 + [2] * 30
    own = [t.replace("{}", "owl") for t in data.waffle]
    assert list(bank.sets["waffle"].texts[30:60]) == own


@pytest.mark.parametrize("flag", ["cupl", "dclip"])
def test_files_of_further_sets_are_checked_and_named(tmp_path: Path, flag: str) -> None:
    files = {
        "is not of the form": write(tmp_path / "a.json", "[]"),
        "could not be read": tmp_path / "none.json",
        "No class has (CuPL sentences|DCLIP phrases)": write(tmp_path / "b.json", '{"x": ["y"]}'),
        "The (CuPL sentences|DCLIP phrases) name 'a_b' and 'A b'": write(
            tmp_path / "c.json", '{"a_b": [], "A b": []}'
        ),
    }
    for says, path in files.items():
        given: dict[str, Any] = {flag: path}
        with pytest.raises(UsageError, match=says):
            with_texts(DATA, **given)


def test_a_source_may_bring_sets_of_its_own_and_the_users_stay() -> None:
    data = replace(DATA, sets={"cupl": {"owl": ("theirs.",)}})
    previous = listing_of(
        sets={"cupl": {"owl": ("mine.",)}, "dclip": {"owl": ("old.",)}},
        waffle=("A {}.",),
        own_texts=("cupl", "waffle"),
    )
    kept = keep_own_texts(data, previous)
    assert kept.sets == {"cupl": {"owl": ("mine.",)}}  # dclip was a source's, and is gone from it
    assert kept.waffle == ("A {}.",)
    assert kept.own_texts == ("cupl", "waffle")
    assert kept.notes == tuple(
        f"No CuPL sentences for '{name}'; extract with some." for name in ("red fox", "newt")
    )
    again = keep_own_texts(replace(data, own_texts=("cupl",)), previous)
    assert again.sets == data.sets
    assert keep_own_texts(data, listing_of()) is data


def listing_of(**fields: Any) -> Listing:
    empty: dict[str, Any] = {"dataset": "toy", "root": "", "ids": (), "hashes": (), "splits": {}}
    return Listing(**empty, classes=DATA.classes, labels=np.zeros(0, dtype=np.int64), **fields)
