"""From a data set's words to a TextBank, with a text tower made of letters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from featcache.errors import UsageError
from featcache.sources.base import Dataset
from featcache.text.encode import encode_texts, texts_of, with_texts

LETTERS = "abcdefghijklmnopqrstuvwxyz .,"


@dataclass
class Letters:
    """Encodes a sentence as its counts of letters."""

    logit_scale: float = 50.0
    logit_bias: float = -2.0
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
    assert len(backbone.seen) == len(set(backbone.seen))
    assert texts_of(DATA).distinct() == backbone.seen
    assert told == [("encoding texts", len(backbone.seen), len(backbone.seen))]


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
    )
    assert with_texts(DATA) is DATA
