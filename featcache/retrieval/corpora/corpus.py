"""A corpus in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float32, Int64
from torch import Tensor

from featcache.retrieval.vectors import Places


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Rows from other caches with the class of a data set that claimed each."""

    name: str
    digest: str
    """12 hex digits of the rows and of how they were chosen."""
    rows: Float32[Tensor, "n d"]
    """Unit vectors."""
    norms: Float32[Tensor, " n"]
    """Norms that the vectors had."""
    labels: Int64[Tensor, " n"]
    """Class of the data set that it is for: a pseudo-label."""
    weights: Float32[Tensor, " n"]
    """1 for every row."""
    cosines: Float32[Tensor, " n"]
    """Cosine with the nearest text or image of the class."""
    leaks: bool
    """Whether it was built from query or validation images of the data set."""
    by: str
    """What rows are near to: class, anchor or image."""
    facts: Mapping[str, Any]
    """How it was built, and what was left out."""
    own_rows: Int64[Tensor, " n"] | None = None
    """Row of the listing of the data set itself that each vector is of, or of a part of; -1 for an
    image of another data set. None where that is not known."""
    places: Places | None = None
    """Where the vectors come from: source among `facts["sources"]`, row and part."""
