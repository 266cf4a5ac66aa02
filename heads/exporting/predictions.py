"""Answers of a head to rows of a cache, for a table of its features."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int64

from featcache.errors import HeadError
from featcache.types import FeatureSet
from heads.answering import query_needs
from heads.head import Head
from heads.reading import read_rows


def answer_of(
    head: Head, features: FeatureSet
) -> Callable[[Int64[np.ndarray, " r"]], tuple[Int64[np.ndarray, " r"], Float[np.ndarray, " r"]]]:
    """Return what gives the predicted labels of rows of a cache, and their probabilities.

    Raises:
        HeadError: If the head was trained on other features, or has other classes.

    Example:
        >>> import featcache, heads
        >>> from heads.exporting.predictions import answer_of
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> answer = answer_of(heads.fit("ridge", cache, shots=4), cache)
        >>> labels, probabilities = answer(cache.usable("val"))
        >>> bool((probabilities > 1 / 24).all())
        True
    """
    head.check_key(features.key, f"the cache {features.path}")
    if head.classes != features.classes:
        raise HeadError(
            f"This head of {head.method.name} names {len(head.classes)} classes that are not those "
            f"of {features.listing.dataset}. Name a run on this data set."
        )
    needs = query_needs(head)

    def answer(
        rows: Int64[np.ndarray, " r"],
    ) -> tuple[Int64[np.ndarray, " r"], Float[np.ndarray, " r"]]:
        found = head.probabilities(read_rows(features, rows, "query", needs, head.device)).max(-1)
        return found.indices.cpu().numpy(), found.values.cpu().numpy()

    return answer
