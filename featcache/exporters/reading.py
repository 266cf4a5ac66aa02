"""The unit rows of a table, some at a time."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from featcache.types import FeatureSet

CHUNK = 4096
"""Rows that are read at once."""


def chunks(features: FeatureSet, rows: Int64[np.ndarray, " r"]) -> Iterator[Tensor]:
    """Yield the global features of rows as unit rows [b d], in order."""
    for start in range(0, len(rows), CHUNK):
        yield features.unit("global", rows[start : start + CHUNK])
