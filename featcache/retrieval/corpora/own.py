"""How near a class's own images are to its text, for judging how near the rows of a corpus are.

What cosine is high depends on the backbone and the texts. Nothing is chosen by these figures.
"""

from collections.abc import Sequence

import numpy as np
import torch

from featcache.retrieval.corpora.digests import has_other_texts
from featcache.store.format.corpus_file import CorpusRecord
from featcache.types import FeatureSet

IMAGES = 100
"""Most images of a class that are compared, evenly spaced."""


def own_medians(features: FeatureSet, record: CorpusRecord) -> Sequence[float | None]:
    """Return, for every class, the median cosine of its training images with its text.

    Args:
        features: Cache of the data set that the corpus is for.
        record: Description of the corpus.

    Returns:
        None for a class without labelled training images; empty unless the corpus has global
        features by class and the texts that chose them are still there.

    Raises:
        CacheError: If features are damaged.
    """
    bank, kind = features.text, record.facts.get("text")
    if (record.by, record.of) != ("class", "global") or bank is None or not isinstance(kind, str):
        return ()
    if has_other_texts(record.facts, features) or "train" not in features.listing.splits:
        return ()
    anchors = bank.anchors(kind)
    rows = features.usable("train")
    rows = rows[features.components["global"].present()[rows]]
    medians: list[float | None] = []
    for label, anchor in enumerate(anchors):
        own = rows[features.labels[rows] == label]
        if not len(own):
            medians.append(None)
            continue
        some = own[np.linspace(0, len(own) - 1, min(IMAGES, len(own))).astype(np.int64)]
        cosines = features.unit("global", some) @ anchor
        medians.append(round(float(torch.quantile(cosines, 0.5)), 6))
    return medians
