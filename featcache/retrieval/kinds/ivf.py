"""ivf: inverted lists of float16 vectors.

A search compares the query with the vectors of the lists whose centroids are nearest. Takes two
bytes a number, in memory and on disk.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Shaped

from featcache.retrieval.kinds.inverted import Inverted, list_choices
from featcache.retrieval.kinds.structure import Choice, Layout, refuse_codes


class Ivf(Inverted):
    """Inverted lists of float16 vectors.

    Example:
        >>> rows = np.eye(64, dtype=np.float32)
        >>> index = Ivf(64, {"lists": 2, "probes": 2})
        >>> index.train(rows)
        >>> index.add(rows)
        >>> index.candidates(rows[3:4], 1).tolist()
        [[3]]
    """

    name: ClassVar[str] = "ivf"
    finds_more: ClassVar[tuple[str, ...]] = ("probes",)

    @classmethod
    def choices(cls, count: int, dim: int) -> dict[str, Choice]:
        """Return lists and probes; one list in 32 is searched."""
        return list_choices(count, probed=32)

    @property
    def code_size(self) -> int:
        """Bytes of a coded vector."""
        return 2 * self.dim

    def _empty(self, quantizer: Any) -> Any:
        faiss = self._faiss
        return faiss.IndexIVFScalarQuantizer(
            quantizer,
            self.dim,
            self.parameters["lists"],
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # the vectors themselves, not their differences from the centroid
        )

    def _further_layout(self) -> dict[str, Layout]:
        return {}

    def _further(self, index: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
        return {}

    def _take_further(self, index: Any, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        return

    def _refuse_codes(self, codes: Shaped[np.ndarray, "n b"]) -> None:
        refuse_codes(codes)
