"""Read a corpus for training."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from featcache.errors import CacheError
from featcache.retrieval.corpora.corpus import Corpus
from featcache.retrieval.corpora.digests import classes_digest, labels_digest, queries_digest
from featcache.retrieval.vectors import Places
from featcache.store import corpora
from featcache.store.cache import Cache
from featcache.store.format.corpus_file import CorpusArrays, CorpusRecord
from featcache.store.reader import CacheReader
from featcache.types import FeatureSet, unit_and_norms

AGAIN = "Build it again with `featcache corpus build --again`."


def read_corpus(cache: FeatureSet | CacheReader | Path, name: str) -> Corpus:
    """Read a corpus, check every byte, and check that it still fits the data set.

    Args:
        cache: Cache of the data set that the corpus is for, or its folder.
        name: Name of the corpus.

    Raises:
        UnknownNameError: If the cache has no such corpus.
        CorruptCacheError: If it is damaged.
        NewerFormatError: If a later version wrote it.
        CacheError: If it is of another feature key, or classes, query or validation images of the
            data set have changed since, or the labels that a corpus by image was built by.

    Example:
        >>> import featcache
        >>> from featcache.retrieval.corpora.build import build_corpus
        >>> from featcache.retrieval.corpora.origins import Origin
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> sources = [Origin(features=cache, splits=("train",))]
        >>> report = build_corpus("more", cache, sources, k=2, again=True)
        >>> read_corpus(cache, "more").digest == report.digest
        True
    """
    features = _opened(cache)
    record, arrays = corpora.read_corpus(features.path, name)
    check_fits(record, features)
    rows, norms = unit_and_norms(torch.from_numpy(arrays.values))
    return Corpus(
        name=name,
        digest=record.digest,
        rows=rows,
        norms=norms,
        labels=torch.from_numpy(arrays.labels),
        weights=torch.ones(len(rows)),
        cosines=torch.from_numpy(arrays.cosines),
        leaks=record.leaks,
        by=record.by,
        facts={
            **record.facts,
            "of": record.of,
            "sources": [f"{s.dataset}:{'+'.join(s.splits) or 'all'}" for s in record.sources],
        },
        own_rows=_own_rows(record, arrays),
        places=Places(
            source=arrays.source.astype(np.int64),
            row=arrays.row,
            part=arrays.part.astype(np.int64),
        ),
    )


def check_fits(record: CorpusRecord, features: FeatureSet) -> None:
    """Check that a corpus fits the data set as its cache has it now.

    Raises:
        CacheError: If it does not.
    """
    name, dataset = record.name, features.listing.dataset
    if record.key != features.key.digest() or record.dataset != dataset:
        raise CacheError(
            f"The corpus '{name}' in {features.path} was built for {record.dataset} with the key "
            f"{record.key}, not for {dataset} with {features.key.digest()}. {AGAIN}"
        )
    if (record.classes, record.classes_digest) != (len(features.classes), classes_digest(features)):
        raise CacheError(
            f"The classes of {dataset} have changed since the corpus '{name}' was built, so that "
            f"its labels may mean other classes. {AGAIN}"
        )
    if record.queries_digest != queries_digest(features):
        raise CacheError(
            f"The query or validation images of {dataset} have changed since the corpus '{name}' "
            f"was built, so that it may contain some of them. {AGAIN}"
        )
    if record.by == "image" and record.facts.get("labels_digest") != labels_digest(features):
        raise CacheError(
            f"The training images of {dataset} or their labels have changed since the corpus "
            f"'{name}' was built by them. {AGAIN}"
        )


def _own_rows(record: CorpusRecord, arrays: CorpusArrays) -> Int64[Tensor, " n"]:
    """Return the rows of the listing of the data set; -1 for images of other ones."""
    is_own = np.array([source.dataset == record.dataset for source in record.sources])
    return torch.from_numpy(np.where(is_own[arrays.source], arrays.row, -1))


def _opened(cache: FeatureSet | CacheReader | Path) -> FeatureSet:
    if isinstance(cache, FeatureSet):
        return cache
    return (Cache.open(cache) if isinstance(cache, Path) else cache).feature_set()
