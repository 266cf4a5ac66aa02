"""From words to a TextBank: every sentence of a data set through the text tower once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from featcache.sources.base import Dataset, Report
from featcache.text.descriptions import match_descriptions, read_descriptions
from featcache.text.templates import check_template, fill, read_templates
from featcache.types import Listing, TextBank

BATCH = 64
"""Sentences encoded at once."""


@runtime_checkable
class Worded(Protocol):
    """What has classes and words for them: a data set or a listing."""

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
    def default_text(self) -> str:
        """Name, template or description."""
        ...


@runtime_checkable
class TextTower(Protocol):
    """What is asked of a backbone here."""

    logit_scale: float
    logit_bias: float

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Encode sentences, un-normalised, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Every sentence of a data set, before it is encoded."""

    names: tuple[str, ...]
    """Of the classes, bare."""
    filled: tuple[tuple[str, ...], ...]
    """One tuple a class: its name in every template."""
    descriptions: tuple[str, ...]
    owner: tuple[int, ...]
    """Class of each description."""

    def distinct(self) -> list[str]:
        """List every sentence once, in order of first appearance."""
        filled = (text for row in self.filled for text in row)
        return list(dict.fromkeys((*self.names, *filled, *self.descriptions)))


def with_texts(
    dataset: Dataset, *, templates: Path | None = None, descriptions: Path | None = None
) -> Dataset:
    """Replace a data set's words by the user's own files.

    Args:
        dataset: As its source gave it.
        templates: A file with one template a line.
        descriptions: A JSON file `{class: [descriptor, ...]}`.

    Raises:
        UsageError: If a file cannot be used.
    """
    if templates is not None:
        own = {*dataset.own_texts, "templates"}
        dataset = replace(
            dataset, templates=read_templates(templates), own_texts=tuple(sorted(own))
        )
    if descriptions is not None:
        matched, notes = match_descriptions(read_descriptions(descriptions), dataset.classes)
        dataset = replace(
            dataset,
            descriptions=matched,
            own_texts=tuple(sorted({*dataset.own_texts, "descriptions"})),
            notes=(*dataset.notes, *notes),
        )
    return dataset


def keep_own_texts(dataset: Dataset, previous: Listing | None) -> Dataset:
    """Keep the words that the user gave in an earlier pass, unless this one brings others."""
    kept = set(previous.own_texts if previous else ()) - set(dataset.own_texts)
    if previous is None or not kept:
        return dataset
    own = tuple(sorted({*dataset.own_texts, *kept}))
    if "templates" in kept:
        dataset = replace(dataset, templates=previous.templates)
    if "descriptions" in kept:
        # Those of classes that are gone stay too: a class may be renamed, and renamed back.
        without = [name for name in dataset.classes if name not in previous.descriptions]
        notes = [
            f"No descriptions for '{name}'; give some with --descriptions." for name in without
        ]
        dataset = replace(
            dataset, descriptions=previous.descriptions, notes=(*dataset.notes, *notes[:5])
        )
    return replace(dataset, own_texts=own)


def texts_of(words: Worded) -> Texts:
    """List every sentence of a data set, class by class.

    Raises:
        UsageError: If a template has not exactly one `{}`.
    """
    templates = [check_template(t) for t in words.templates]
    owned = [
        (sentence, label)
        for label, name in enumerate(words.classes)
        for sentence in words.descriptions.get(name, ())
    ]
    return Texts(
        names=words.classes,
        filled=tuple(tuple(fill(t, name) for t in templates) for name in words.classes),
        descriptions=tuple(sentence for sentence, _ in owned),
        owner=tuple(label for _, label in owned),
    )


def encode_texts(words: Worded, tower: TextTower, report: Report | None = None) -> TextBank:
    """Encode the names, templates and descriptions of a data set, un-normalised.

    Sentences that occur twice are encoded once.

    Args:
        words: The data set or its listing.
        tower: The tower.
        report: Told how many sentences are done.
    """
    texts = texts_of(words)
    distinct = texts.distinct()
    parts = []
    for start in range(0, len(distinct), BATCH):
        parts.append(tower.encode_texts(distinct[start : start + BATCH]).float().cpu())
        if report:
            report("encoding texts", min(start + BATCH, len(distinct)), len(distinct))
    table = torch.cat(parts)
    place = {text: i for i, text in enumerate(distinct)}

    def rows(sentences: tuple[str, ...]) -> Float32[Tensor, "m d"]:
        return table[torch.tensor([place[s] for s in sentences], dtype=torch.int64)]

    owner: Int64[Tensor, " m"] = torch.tensor(texts.owner, dtype=torch.int64)
    return TextBank(
        classes=words.classes,
        names=rows(texts.names),
        templates=words.templates,
        template_rows=torch.stack([rows(f) for f in texts.filled]) if words.templates else None,
        descriptions=texts.descriptions,
        description_rows=rows(texts.descriptions) if texts.owner else None,
        owner=owner if texts.owner else None,
        logit_scale=tower.logit_scale,
        logit_bias=tower.logit_bias,
        default=words.default_text,
    )
