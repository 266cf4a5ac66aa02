"""Which vector an id of an index is: ids count vectors in the order in which rows were added.

An index that was built and then grew has rows of its caches in turns, so that the order is not that
of `Vectors`. It is stored by rows: `sources` says of which cache, `rows` which row of it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from featcache.retrieval.vectors import Places, Vectors


class Order:
    """The rows of an index in the order of its ids."""

    def __init__(
        self,
        sources: Int32[np.ndarray, " r"],
        rows: Int64[np.ndarray, " r"],
        parts: Sequence[int],
        vectors: int,
    ) -> None:
        """Check rows of an untrusted index.

        Args:
            sources: Position of the cache of each row among those of the index.
            rows: Row of its listing.
            parts: Vectors of a row, for each cache.
            vectors: Vectors of all rows.

        Raises:
            ValueError: If the rows cannot be those; the message is a predicate.
        """
        if not len(rows) or len(rows) != len(sources):
            raise ValueError("names no rows, or not one cache for each")
        if int(sources.min()) < 0 or int(sources.max()) >= len(parts) or int(rows.min()) < 0:
            raise ValueError("names rows of a cache that it does not cover")
        counts = np.array(parts, dtype=np.int64)[sources]
        self.sources, self.rows = sources, rows
        self._ends = np.cumsum(counts)
        if float(counts.astype(np.float64).sum()) != vectors:
            raise ValueError(f"names rows that do not have {vectors} vectors")
        for number in range(len(parts)):
            own = np.sort(rows[sources == number])
            if (own[1:] == own[:-1]).any():
                raise ValueError("names a row twice")

    def rows_of(self, number: int) -> Int64[np.ndarray, " s"]:
        """Return the rows of one cache, ascending."""
        return np.sort(self.rows[self.sources == number])

    def positions(
        self, ids: Int64[np.ndarray, " n"], vectors: Vectors, sources: Sequence[int]
    ) -> Int64[np.ndarray, " n"]:
        """Return where the vectors of some ids are among all vectors.

        Args:
            ids: Ids in range.
            vectors: Vectors of the same caches.
            sources: Position of each cache of the index among those of the vectors.
        """
        at = np.searchsorted(self._ends, ids, side="right")
        begin = np.where(at > 0, self._ends[at - 1], 0)
        places = Places(
            source=np.array(sources, dtype=np.int64)[self.sources[at]],
            row=self.rows[at],
            part=ids - begin,
        )
        return vectors.positions(places)
