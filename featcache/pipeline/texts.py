"""Encoding the texts of a data set that a cache lacks.

A sentence is encoded once for a cache: the rows of earlier texts are used again, if the same
versions, device and tokenizer made them.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from jaxtyping import Float32
from torch import Tensor

from featcache.backbones.base import Backbone
from featcache.errors import CacheError
from featcache.pipeline.compatibility import environment
from featcache.sources.base import Dataset, Report
from featcache.store.cache import Cache
from featcache.store.format.records import TextLine
from featcache.text.encode import Owned, Texts, encode_texts, texts_of
from featcache.text.stored import rows_by_text
from featcache.wording import Part


def say_lacking(cache: Cache | None, backbone: Backbone, say: Callable[[Part], None]) -> None:
    """Say why the texts of a cache without any cannot be encoded here, if that is so."""
    if backbone.lacks_texts is not None and (cache is None or cache.text_line is None):
        say(backbone.lacks_texts.parts)


def missing_texts(
    cache: Cache | None, dataset: Dataset, backbone: Backbone
) -> dict[str, int] | None:
    """Count the sentences to encode, by kind; None if a cache holds exactly those of the data set.

    The result is empty if the cache has a row for each but other texts are current, or another
    default kind. Texts of another tokenizer are all missing; none are if the backbone cannot encode
    texts.
    """
    if backbone.lacks_texts is not None:
        return None
    texts = texts_of(dataset)
    by_kind = _by_kind(texts)
    if cache is None:
        return {kind: len(each) for kind, each in by_kind.items()}
    bank = cache.text()
    if bank is not None and bank.tokenizer == backbone.tokenizer:
        held = {kind: Owned(s.texts, tuple(s.owner.tolist())) for kind, s in bank.owned().items()}
        same = {
            "name": bank.classes == dataset.classes,
            "template": (bank.classes, bank.templates) == (dataset.classes, dataset.templates),
            **{kind: held.get(kind) == owned for kind, owned in texts.owned.items()},
        }
        as_asked = (held.keys(), bank.default) == (texts.owned.keys(), dataset.default_text)
        if as_asked and all(same.values()):
            return None
    known = stored_rows(cache, backbone, set(texts.every()))
    new = {kind: sum(text not in known for text in each) for kind, each in by_kind.items()}
    return {kind: number for kind, number in new.items() if number}


def stored_rows(
    cache: Cache, backbone: Backbone, wanted: Collection[str]
) -> dict[str, Float32[Tensor, " d"]]:
    """Return the stored rows of sentences that need not be encoded again.

    Args:
        cache: Cache of the backbone.
        backbone: Only rows of its tokenizer, device and versions are taken.
        wanted: Distinct sentences.
    """
    known: dict[str, Float32[Tensor, " d"]] = {}
    for line in _reusable(cache, backbone):
        left = {text for text in wanted if text not in known}
        if not left:
            break
        with suppress(CacheError):  # damaged texts are told when they are current, or by verify
            bank = cache.text(line)
            if bank is not None and bank.tokenizer == backbone.tokenizer and bank.norms == "raw":
                known |= rows_by_text(bank, left)
    return known


def _reusable(cache: Cache, backbone: Backbone) -> Iterator[TextLine]:
    """List texts that were made as they would be made now, the newest first."""
    now = environment(backbone.device)
    return (line for line in reversed(cache.texts) if dict(line.provenance) == now)


def put_texts(
    cache: Cache,
    dataset: Dataset,
    backbone: Backbone,
    *,
    report: Report | None = None,
    say: Callable[[Part], None] = lambda _: None,
) -> bool:
    """Encode the texts of a data set unless the cache holds exactly these; tell whether it did."""
    if backbone.lacks_texts is not None:
        say(backbone.lacks_texts.parts)
    if missing_texts(cache, dataset, backbone) is None:
        return False
    write_texts(cache, dataset, backbone, report=report, say=say)
    return True


def write_texts(
    cache: Cache,
    dataset: Dataset,
    backbone: Backbone,
    *,
    report: Report | None = None,
    say: Callable[[Part], None] = lambda _: None,
) -> None:
    """Encode the texts of a data set that the cache has no row of; make all the current ones."""
    texts = texts_of(dataset)
    cut = {kind: backbone.truncated(each) for kind, each in _by_kind(texts).items()}
    if total := sum(cut.values()):
        kinds = ", ".join(f"{kind} {number}" for kind, number in cut.items() if number)
        say(
            f"{total} of {len(texts.every())} texts are longer than {backbone.name} reads and were "
            f"cut: {kinds}."
        )
    known = stored_rows(cache, backbone, set(texts.every()))
    bank = encode_texts(dataset, backbone, report, known=known)
    cache.put_text(bank, environment(backbone.device))


def _by_kind(texts: Texts) -> dict[str, list[str]]:
    """Return kind -> its sentences, without empty kinds."""
    filled = [text for row in texts.filled for text in row]
    owned = {kind: list(held.texts) for kind, held in texts.owned.items()}
    every = {"name": list(texts.names), "template": filled, **owned}
    return {kind: each for kind, each in every.items() if each}
