"""An augmentation corpus as it is read: unit rows, their pseudo-labels and where they came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float32, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Rows that retrieval found for the classes of a data set."""

    name: str
    digest: str
    """12 hex digits."""
    rows: Float32[Tensor, "n d"]
    """Unit features."""
    norms: Float32[Tensor, " n"]
    """Length of the raw features."""
    labels: Int64[Tensor, " n"]
    """Class of the data set that the corpus is for."""
    weights: Float32[Tensor, " n"]
    """1 by default."""
    cosines: Float32[Tensor, " n"]
    """Of each row and what it was found by."""
    leaks: bool
    """Whether it was built, on demand, with rows of the query split."""
    by: str
    """What rows were found by: class, anchor or image."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further facts of how it was built."""
