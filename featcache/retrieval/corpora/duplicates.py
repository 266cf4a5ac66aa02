"""Rows that are near-duplicates of query or validation images.

Equal files are known by their content hash. Of the other images, those are near-duplicates whose
global features have a cosine above the threshold (threshold.py) with a query or validation image.
All patches, views and crops of a near-duplicate are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from featcache.retrieval.corpora.images import guarded_splits, image_keys
from featcache.retrieval.exact import search_exactly
from featcache.retrieval.vectors import Source, Vectors
from featcache.types import FeatureSet

CHUNK = 4096
"""Images that are compared at once."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Images that are compared with the classes, and how many are not."""

    rows: list[Int64[np.ndarray, " _"]]
    """Rows of each source, ascending."""
    guarded: int
    """Images that equal a query or validation image."""
    shots: int
    """Images left out because they equal a shot."""
    repeated: int
    """Images left out because they equal an earlier one."""


def keep_first(
    sources: Sequence[Source],
    guarded: UInt64[np.ndarray, " m"],
    shots: UInt64[np.ndarray, " s"],
    *,
    with_guarded: bool = False,
) -> Kept:
    """Leave out images that equal others: the first of equal images stays.

    Args:
        sources: Caches and their rows.
        guarded: Keys of the query and validation images.
        shots: Keys of the shots.
        with_guarded: Whether query and validation images stay.
    """
    keys = [image_keys(source.features, source.rows) for source in sources]
    joined = np.concatenate([np.empty(0, dtype=np.uint64), *keys])
    is_guarded, is_shot = np.isin(joined, guarded), np.isin(joined, shots)
    is_first = np.zeros(len(joined), dtype=bool)
    is_first[np.unique(joined, return_index=True)[1]] = True
    keep = is_first & ~is_shot & (~is_guarded | with_guarded)
    cuts = np.cumsum([len(k) for k in keys])[:-1]
    rows = [source.rows[stays] for source, stays in zip(sources, np.split(keep, cuts), strict=True)]
    return Kept(
        rows=rows,
        guarded=int(is_guarded.sum()),
        shots=int((is_shot & ~is_guarded).sum()),
        repeated=int((~is_first & ~is_shot & (~is_guarded | with_guarded)).sum()),
    )


class NearDuplicates:
    """Compares images with the query and validation images of a data set, each once."""

    def __init__(self, target: FeatureSet, threshold: float) -> None:
        """Choose what to compare with.

        Args:
            target: Cache of the data set; it must have query or validation images.
            threshold: Cosine above which images are near-duplicates.
        """
        self._guarded = Vectors([target], splits=guarded_splits(target))
        self._threshold = threshold
        self._compared: set[tuple[int, int]] = set()
        self.count = 0
        """Near-duplicates found."""

    def among(
        self,
        sources: Sequence[Source],
        source: Int64[np.ndarray, " n"],
        row: Int64[np.ndarray, " n"],
    ) -> list[Int64[np.ndarray, " _"]]:
        """Return the rows of each source that are near-duplicates and were not compared before.

        Args:
            sources: Caches; always the same ones.
            source: Source of each image; images may repeat.
            row: Row of each image.

        Raises:
            MissingComponentError: If an image has no global features.
        """
        found = []
        for number, own in enumerate(sources):
            rows = np.unique(row[source == number])
            rows = np.array(
                [r for r in rows.tolist() if (number, r) not in self._compared], dtype=np.int64
            )
            near = self._near(own.features, rows)
            self._compared |= {(number, r) for r in rows.tolist()}
            found.append(rows[near])
        self.count += sum(map(len, found))
        return found

    def _near(self, features: FeatureSet, rows: Int64[np.ndarray, " r"]) -> Bool[np.ndarray, " r"]:
        near = np.zeros(len(rows), dtype=bool)
        for start in range(0, len(rows), CHUNK):
            units = features.unit("global", rows[start : start + CHUNK])
            cosines, _ = search_exactly(self._guarded, units, 1)
            near[start : start + CHUNK] = (cosines[:, 0] > self._threshold).numpy()
        return near
