"""Bringing the texts of a cache up to date."""

from collections.abc import Callable

from featcache.backbones.base import Backbone
from featcache.pipeline.settings import environment
from featcache.sources.base import Dataset, Report
from featcache.store.cache import Cache
from featcache.text.encode import encode_texts, texts_of


def put_texts(
    cache: Cache,
    dataset: Dataset,
    backbone: Backbone,
    *,
    report: Report | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> bool:
    """Encode the texts of a data set unless the cache holds exactly these; tell whether it did."""
    texts = texts_of(dataset)
    bank = cache.text()
    if (
        bank is not None
        and (bank.classes, bank.templates) == (dataset.classes, dataset.templates)
        and (bank.descriptions, bank.default) == (texts.descriptions, dataset.default_text)
        and (() if bank.owner is None else tuple(bank.owner.tolist())) == texts.owner
    ):
        return False
    every = [*texts.names, *(t for row in texts.filled for t in row), *texts.descriptions]
    if cut := backbone.truncated(every):
        say(f"{cut} of {len(every)} texts are longer than {backbone.name} reads; cut.")
    cache.put_text(encode_texts(dataset, backbone, report), environment(backbone.device))
    return True
