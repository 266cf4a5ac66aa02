"""The kinds of text of a bank: what stands for which, and what is said where one is missing."""

from dataclasses import replace
from typing import get_type_hints

import pytest
import torch
from torch import Tensor

from featcache.bank import TextBank, TextSet
from featcache.errors import MissingComponentError, UnknownNameError
from featcache.keys import ANY_TEXT_KINDS, IMPORTED_TEMPLATE, TEXT_KINDS, AnyTextKind, TextKind
from heads import registry

ROWS = torch.randn(40, 5, generator=torch.Generator().manual_seed(3))


def texts_at(start: int, owner: tuple[int, ...]) -> TextSet:
    return TextSet(
        texts=tuple(f"text {start + i}" for i in range(len(owner))),
        rows=ROWS[start : start + len(owner)],
        owner=torch.tensor(owner),
    )


def bank(**sets: TextSet) -> TextBank:
    described = texts_at(9, (0, 2, 1, 0))
    return TextBank(
        classes=("ant", "bee", "cat"),
        names=ROWS[:3],
        templates=("a {}", "the {}"),
        template_rows=ROWS[3:9].reshape(3, 2, 5),
        descriptions=described.texts,
        description_rows=described.rows,
        owner=described.owner,
        sets=sets,
    )


WAFFLE = texts_at(13, (0, 0, 1, 1, 2, 2))
CUPL = texts_at(19, (2, 0, 1, 1))
DCLIP = texts_at(23, (1, 0, 2, 1, 1))
ALL = bank(cupl=CUPL, dclip=DCLIP, waffle=WAFFLE)


def naive(rows: Tensor, owner: Tensor, *, normalise: bool) -> Tensor:
    """Return a class's mean of unit texts, text by text in float64."""
    out = torch.zeros(3, 5, dtype=torch.float64)
    for c in range(3):
        own = [r.double() / r.double().norm() for r, o in zip(rows, owner, strict=True) if o == c]
        for row in own:
            out[c] += row / len(own)
        if normalise:
            out[c] /= out[c].norm()
    return out


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_anchors_are_unit_and_classifiers_what_their_authors_score_by(kind: str) -> None:
    rows = {
        "name": (ROWS[:3], torch.arange(3)),
        "template": (ROWS[3:9], torch.tensor([0, 0, 1, 1, 2, 2])),
        "description": (ROWS[9:13], torch.tensor([0, 2, 1, 0])),
        **{k: (held.rows, held.owner) for k, held in ALL.sets.items()},
    }[kind]
    anchors = naive(*rows, normalise=True).float()
    torch.testing.assert_close(ALL.anchors(kind), anchors)
    means = naive(*rows, normalise=kind not in ("dclip", "waffle")).float()
    torch.testing.assert_close(ALL.classifier(kind), means)
    torch.testing.assert_close(replace(ALL, default=kind).classifier(), means)
    unit, owner = ALL.texts(kind)
    torch.testing.assert_close(unit, torch.nn.functional.normalize(rows[0], dim=-1))
    assert torch.equal(owner, rows[1])


def test_only_dclip_falls_back_on_the_descriptions() -> None:
    described = bank()
    assert described.available() == ("name", "template", "description", "dclip")
    assert torch.equal(described.texts("dclip")[0], described.texts("description")[0])
    assert not torch.allclose(described.classifier("dclip"), described.classifier("description"))
    assert ALL.available() == TEXT_KINDS
    assert not torch.equal(ALL.texts("dclip")[0], ALL.texts("description")[0])
    # A set of its own that lacks a class is not mixed with descriptions.
    part = bank(dclip=texts_at(23, (0, 2)))
    assert part.available() == ("name", "template", "description")
    with pytest.raises(MissingComponentError, match=r"'dclip'.* with dclip=FILE"):
        part.classifier("dclip")


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("template", "templates=FILE."),
        ("description", "descriptions=FILE.json, which holds"),
        ("cupl", "cupl=FILE.json, which holds"),
        ("dclip", "dclip=FILE.json, which holds"),
        ("waffle", "waffle=SEED."),
    ],
)
def test_the_argument_that_adds_a_kind_is_named(kind: str, argument: str) -> None:
    bare = TextBank(classes=("ant",), names=ROWS[:1], templates=(), template_rows=None)
    for read in (bare.anchors, bare.classifier, bare.texts, bare.raw_anchors):
        with pytest.raises(MissingComponentError, match="it has: name") as caught:
            read(kind)
        assert argument in str(caught.value)
    with pytest.raises(UnknownNameError, match="did you mean 'cupl'"):
        bare.anchors("cpul")


@pytest.mark.parametrize("kind", ["name", "waffle", "dclip"])
def test_imported_texts_are_one_vector_a_class(kind: str) -> None:
    bank = TextBank(
        classes=("ant",),
        names=None,
        templates=(IMPORTED_TEMPLATE,),
        template_rows=ROWS[:1, None],
    )
    with pytest.raises(
        MissingComponentError, match=r"one vector per class.*has: template"
    ) as caught:
        bank.anchors(kind)
    assert "extract" not in str(caught.value)
    assert "Train with text='template', or" in str(caught.value)


def test_some_classes_take_their_texts_along() -> None:
    some = ALL.of_classes(torch.tensor([2, 0]))
    assert some.classes == ("cat", "ant")
    assert some.available() == TEXT_KINDS
    for kind in TEXT_KINDS:
        torch.testing.assert_close(some.classifier(kind), ALL.classifier(kind)[[2, 0]])
    assert some.sets["cupl"].texts == ("text 19", "text 20")
    assert some.descriptions == ("text 9", "text 10", "text 12")


PROMPTS = texts_at(28, (-1,) * 4)


def test_prompts_are_of_no_class() -> None:
    both = bank(cupl=CUPL, prompt=PROMPTS)
    unit, owner = both.texts("prompt")
    torch.testing.assert_close(unit, torch.nn.functional.normalize(PROMPTS.rows, dim=-1))
    assert owner.tolist() == [-1] * 4
    assert "prompt" not in both.available()
    assert both.readable() == (*both.available(), "prompt")
    for read in (both.anchors, both.classifier, both.raw_anchors):
        with pytest.raises(UnknownNameError, match="kind of text 'prompt'"):
            read("prompt")
    some = both.of_classes(torch.tensor([2, 0]))
    assert torch.equal(some.texts("prompt")[0], unit)
    other = bank(cupl=CUPL, prompt=texts_at(29, (-1,) * 4))
    assert other.digest("prompt") != both.digest("prompt")
    assert other.digest("cupl") == both.digest("cupl")


def test_without_prompts_it_is_said_where_they_come_from() -> None:
    with pytest.raises(MissingComponentError, match="holds no prompts; it has: name") as caught:
        ALL.texts("prompt")
    assert "prompts=FILE, a text file with one sentence a line." in str(caught.value)
    with pytest.raises(MissingComponentError, match=r"name, template, description\. Choose"):
        bank().texts("prompt")  # what dclip would read is there, texts of that kind are not
    assert ALL.lacks("prompt") is not None
    assert bank(prompt=PROMPTS).lacks("prompt") is None
    assert ALL.readable() == ALL.available() == TEXT_KINDS
    assert (*TEXT_KINDS, "prompt") == ANY_TEXT_KINDS


def test_every_method_that_reads_texts_offers_every_kind() -> None:
    for name in registry.names():
        hints = get_type_hints(registry.get(name).config)
        if "text" in hints:
            kinds = (TextKind, TextKind | None, AnyTextKind | None)
            assert hints["text"] in kinds, name
