"""Encode all texts of a data set into a TextBank, each sentence once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from featcache.keys import PROMPT, TEXT_KINDS
from featcache.sources.base import Dataset, Report
from featcache.text.descriptions import match_descriptions, read_descriptions
from featcache.text.prompts import read_prompts
from featcache.text.templates import check_length, check_template, fill, read_templates
from featcache.text.waffle import waffle_templates
from featcache.types import Listing, TextBank, TextSet

BATCH = 64
"""Sentences encoded at once. A shorter batch is filled up: the shape of a batch may change the last
bits of its rows, its other sentences and the position do not."""

_CALLED = {"descriptions": "descriptions", "cupl": "CuPL sentences", "dclip": "DCLIP phrases"}
"""Argument that names a file of texts per class -> what messages call these texts."""
_READ_BY = {
    "descriptions": "lazsl, fair and methods with text=description",
    "cupl": "methods with text=cupl",
    "dclip": "methods with text=dclip",
}
"""Argument -> methods that need such texts for every class. Notes of a listing quote it."""


@runtime_checkable
class HasTexts(Protocol):
    """Class names and texts: a data set or a listing."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Readable names, in label order."""
        ...

    @property
    def templates(self) -> tuple[str, ...]:
        """Sentences with one `{}`."""
        ...

    @property
    def descriptions(self) -> Mapping[str, tuple[str, ...]]:
        """Class name -> sentences."""
        ...

    @property
    def sets(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Further descriptions: cupl, dclip -> class name -> sentences."""
        ...

    @property
    def waffle(self) -> tuple[str, ...]:
        """Templates of random words."""
        ...

    @property
    def prompts(self) -> tuple[str, ...]:
        """Sentences of no class."""
        ...

    @property
    def default_text(self) -> str:
        """Name, template or description."""
        ...


@runtime_checkable
class TextTower(Protocol):
    """The text tower of a backbone."""

    logit_scale: float
    logit_bias: float
    tokenizer: str

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Encode sentences in order, not normalised."""
        ...


@dataclass(frozen=True, slots=True)
class Owned:
    """Sentences, each of one class; or prompts, which are of none."""

    texts: tuple[str, ...]
    owner: tuple[int, ...]
    """Class of each sentence; -1 for prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """All sentences of a data set before encoding."""

    names: tuple[str, ...]
    """Class names."""
    filled: tuple[tuple[str, ...], ...]
    """One tuple per class: its name in every template."""
    owned: Mapping[str, Owned]
    """Existing kinds among description, cupl, dclip, waffle and prompt."""

    def every(self) -> list[str]:
        """List all sentences, with repetitions."""
        filled = (text for row in self.filled for text in row)
        return [*self.names, *filled, *(text for o in self.owned.values() for text in o.texts)]

    def distinct(self) -> list[str]:
        """List distinct sentences in order of first appearance."""
        return list(dict.fromkeys(self.every()))


def with_texts(
    dataset: Dataset,
    *,
    templates: Path | None = None,
    descriptions: Path | None = None,
    cupl: Path | None = None,
    dclip: Path | None = None,
    waffle: int | None = None,
    prompts: Path | None = None,
) -> Dataset:
    """Replace texts of a data set by files of the user.

    Args:
        dataset: Data set from its source.
        templates: File with one template per line.
        descriptions: JSON file `{class: [descriptor, ...]}`.
        cupl: JSON file with sentences that contain the class name, used unchanged.
        dclip: JSON file with phrases, appended to the class name.
        waffle: Seed of random words.
        prompts: File with one sentence of no class per line.

    Raises:
        UsageError: If a file cannot be used.
    """
    own = set(dataset.own_texts)
    if templates is not None:
        own.add("templates")
        dataset = replace(dataset, templates=read_templates(templates))
    for kind, path in (("descriptions", descriptions), ("cupl", cupl), ("dclip", dclip)):
        if path is None:
            continue
        own.add(kind)
        matched, notes = match_descriptions(
            read_descriptions(path, kind),
            dataset.classes,
            what=_CALLED[kind],
            are_sentences=kind == "cupl",
        )
        if left := len(dataset.classes) - len(matched):
            notes.append(
                f"{left} of {len(dataset.classes)} classes have no {_CALLED[kind]}: "
                f"{_READ_BY[kind]} will not run until all have some."
            )
        dataset = _with_descriptions(dataset, kind, matched, notes)
    if waffle is not None:
        own.add("waffle")
        dataset = replace(dataset, waffle=waffle_templates(dataset.classes, waffle))
    if prompts is not None:
        own.add("prompts")
        dataset = replace(dataset, prompts=read_prompts(prompts))
    return replace(dataset, own_texts=tuple(sorted(own)))


def keep_own_texts(dataset: Dataset, previous: Listing | None) -> Dataset:
    """Keep texts that the user provided in an earlier pass, unless they are replaced now."""
    if previous is None:
        return dataset
    kept = set(previous.own_texts) - set(dataset.own_texts)
    if not kept:
        return dataset
    own = tuple(sorted({*dataset.own_texts, *kept}))
    same: dict[str, Any] = {
        name: getattr(previous, name) for name in ("templates", "waffle", "prompts") if name in kept
    }
    dataset = replace(dataset, **same)
    before = {"descriptions": previous.descriptions, **previous.sets}
    for kind in (name for name in _CALLED if name in kept and name in before):
        # Texts of classes that are gone stay: a class may be renamed, and renamed back.
        without = [name for name in dataset.classes if name not in before[kind]]
        notes = [f"No {_CALLED[kind]} for '{name}'; extract with some." for name in without]
        dataset = _with_descriptions(dataset, kind, before[kind], notes[:5])
    return replace(dataset, own_texts=own)


def _with_descriptions(
    dataset: Dataset, kind: str, given: Mapping[str, tuple[str, ...]], notes: Sequence[str]
) -> Dataset:
    if kind == "descriptions":
        dataset = replace(dataset, descriptions=given)
    else:
        dataset = replace(dataset, sets={**dataset.sets, kind: given})
    return replace(dataset, notes=(*dataset.notes, *notes))


def texts_of(words: HasTexts) -> Texts:
    """List every sentence of a data set, class by class.

    Raises:
        UsageError: If a template has not exactly one `{}`, or a text is longer than any sentence.
    """
    templates, waffle = ([check_template(t) for t in ts] for ts in (words.templates, words.waffle))
    by_class: dict[str, Mapping[str, Sequence[str]]] = {
        "description": words.descriptions,
        **words.sets,
        "waffle": {name: [fill(t, name) for t in waffle] for name in words.classes},
    }
    owned = {}
    for kind in (kind for kind in TEXT_KINDS if kind in by_class):
        pairs = [
            (sentence, label)
            for label, name in enumerate(words.classes)
            for sentence in by_class[kind].get(name, ())
        ]
        if pairs:
            owned[kind] = Owned(tuple(s for s, _ in pairs), tuple(label for _, label in pairs))
    if words.prompts:
        owned[PROMPT] = Owned(words.prompts, (-1,) * len(words.prompts))
    for text in (*words.classes, *(text for held in owned.values() for text in held.texts)):
        check_length(text)
    return Texts(
        names=words.classes,
        filled=tuple(tuple(fill(t, name) for t in templates) for name in words.classes),
        owned=owned,
    )


def encode_texts(
    words: HasTexts,
    tower: TextTower,
    report: Report | None = None,
    *,
    known: Mapping[str, Float32[Tensor, " d"]] = MappingProxyType({}),
) -> TextBank:
    """Encode all sentences of a data set, not normalised; repeated ones once.

    Args:
        words: Data set or listing.
        tower: Text tower.
        report: Called with the number of encoded sentences.
        known: Sentence -> its row from an earlier call with the same tower; these are not encoded.
    """
    texts = texts_of(words)
    distinct = texts.distinct()
    new = [text for text in distinct if text not in known]
    table = {text: known[text] for text in distinct if text in known}
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        table.update(zip(batch, _encode_batch(batch, tower), strict=True))
        if report:
            report("encoding texts", start + len(batch), len(new))

    def rows(sentences: tuple[str, ...]) -> Float32[Tensor, "m d"]:
        return torch.stack([table[s] for s in sentences])

    sets = {
        kind: TextSet(
            texts=held.texts,
            rows=rows(held.texts),
            owner=torch.tensor(held.owner, dtype=torch.int64),
        )
        for kind, held in texts.owned.items()
    }
    described = sets.pop("description", None)
    return TextBank(
        classes=words.classes,
        names=rows(texts.names),
        templates=words.templates,
        template_rows=torch.stack([rows(f) for f in texts.filled]) if words.templates else None,
        descriptions=() if described is None else described.texts,
        description_rows=None if described is None else described.rows,
        owner=None if described is None else described.owner,
        sets=sets,
        logit_scale=tower.logit_scale,
        logit_bias=tower.logit_bias,
        tokenizer=tower.tokenizer,
        default=words.default_text,
    )


def _encode_batch(batch: Sequence[str], tower: TextTower) -> Float32[Tensor, "b d"]:
    """Encode at most `BATCH` sentences in a batch of exactly that size."""
    filled = [*batch, *[batch[0]] * (BATCH - len(batch))]
    return tower.encode_texts(filled)[: len(batch)].float().cpu()
