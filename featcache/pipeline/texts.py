"""Bringing the texts of a cache up to date."""

from collections.abc import Callable

from featcache.backbones.base import Backbone
from featcache.pipeline.settings import environment
from featcache.sources.base import Dataset, Report
from featcache.store.cache import Cache
from featcache.text.encode import Owned, encode_texts, texts_of


def put_texts(
    cache: Cache,
    dataset: Dataset,
    backbone: Backbone,
    *,
    report: Report | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> bool:
    """Encode the texts of a data set unless the cache holds exactly these; tell whether it did."""
    texts, bank = texts_of(dataset), cache.text()
    if bank is not None:
        held = {kind: Owned(s.texts, tuple(s.owner.tolist())) for kind, s in bank.owned().items()}
        same = (bank.classes, bank.templates) == (dataset.classes, dataset.templates)
        if same and (bank.default, held) == (dataset.default_text, texts.owned):
            return False
    every = texts.every()
    if cut := backbone.truncated(every):
        say(f"{cut} of {len(every)} texts are longer than {backbone.name} reads; cut.")
    cache.put_text(encode_texts(dataset, backbone, report), environment(backbone.device))
    return True
