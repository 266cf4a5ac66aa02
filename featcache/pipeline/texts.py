"""Encoding the texts of a data set that a cache lacks."""

from collections.abc import Callable

from featcache.backbones.base import Backbone
from featcache.pipeline.compatibility import environment
from featcache.sources.base import Dataset, Report
from featcache.store.cache import Cache
from featcache.text.encode import Owned, Texts, encode_texts, texts_of
from featcache.wording import Part


def say_lacking(cache: Cache | None, backbone: Backbone, say: Callable[[Part], None]) -> None:
    """Say why the texts of a cache without any cannot be encoded here, if that is so."""
    if backbone.lacks_texts is not None and (cache is None or cache.text_line is None):
        say(backbone.lacks_texts.parts)


def missing_texts(
    cache: Cache | None, dataset: Dataset, backbone: Backbone
) -> dict[str, int] | None:
    """Count the texts that a cache lacks, by kind; None if it holds exactly those of the data set.

    The result is empty if the cache lacks none but holds others, or has another default kind. Texts
    of another tokenizer are all missing; none are if the backbone cannot encode texts.
    """
    if backbone.lacks_texts is not None:
        return None
    texts, bank = texts_of(dataset), None if cache is None else cache.text()
    count = {kind: len(each) for kind, each in _by_kind(texts).items()}
    if bank is None or bank.tokenizer != backbone.tokenizer:
        return count
    held = {kind: Owned(s.texts, tuple(s.owner.tolist())) for kind, s in bank.owned().items()}
    same = {
        "name": bank.classes == dataset.classes,
        "template": (bank.classes, bank.templates) == (dataset.classes, dataset.templates),
        **{kind: held.get(kind) == owned for kind, owned in texts.owned.items()},
    }
    as_asked = (held.keys(), bank.default) == (texts.owned.keys(), dataset.default_text)
    if as_asked and all(same.values()):
        return None
    return {kind: number for kind, number in count.items() if not same[kind]}


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
    """Encode all texts of a data set and make them the current ones."""
    texts = texts_of(dataset)
    cut = {kind: backbone.truncated(each) for kind, each in _by_kind(texts).items()}
    if total := sum(cut.values()):
        kinds = ", ".join(f"{kind} {number}" for kind, number in cut.items() if number)
        say(
            f"{total} of {len(texts.every())} texts are longer than {backbone.name} reads and were "
            f"cut: {kinds}."
        )
    cache.put_text(encode_texts(dataset, backbone, report), environment(backbone.device))


def _by_kind(texts: Texts) -> dict[str, list[str]]:
    """Return kind -> its sentences, without empty kinds."""
    filled = [text for row in texts.filled for text in row]
    owned = {kind: list(held.texts) for kind, held in texts.owned.items()}
    every = {"name": list(texts.names), "template": filled, **owned}
    return {kind: each for kind, each in every.items() if each}
