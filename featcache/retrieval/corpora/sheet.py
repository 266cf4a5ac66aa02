"""The contact sheet of a corpus: the images that each class took, nearest first."""

from pathlib import Path

import numpy as np

from featcache.errors import FeatcacheError
from featcache.imaging.decode import UnreadableImageError
from featcache.pages.sheet import MOST, Mark, Sheet, Tile
from featcache.pages.thumbnails import Thumbnail, thumbnail
from featcache.retrieval.originals import Originals
from featcache.retrieval.patch_places import PatchPlaces
from featcache.store.cache import Cache
from featcache.store.corpora import read_corpus
from featcache.store.format.corpus_file import CorpusArrays, CorpusRecord
from featcache.store.library import find_summaries
from featcache.types import FeatureSet

EACH = 8
"""Most images of a class."""


def corpus_sheet(root: Path, path: Path, name: str) -> Sheet:
    """Read a corpus and the nearest images of each class.

    Args:
        root: Folder of all caches.
        path: Folder of its cache.
        name: Name of the corpus.

    Raises:
        CorruptCacheError: If it is damaged.
    """
    record, arrays = read_corpus(path, name)
    features = Cache.open(path).feature_set()
    caches = [_cache(root, source.dataset, source.key) for source in record.sources]
    found = [cache for cache in caches if cache is not None]
    number = {i: n for n, i in enumerate(i for i, c in enumerate(caches) if c is not None)}
    images = _Images(found, number, record)
    each = max(1, min(EACH, MOST // max(1, record.classes)))
    tiles = [
        images.tile(arrays, int(i), rank, _name(features, label))
        for label in range(record.classes)
        for rank, i in enumerate(_nearest(arrays, label, each), start=1)
    ]
    by = {"class": "text anchors", "anchor": "texts", "image": "shots"}[record.by]
    facts = (
        f"{record.rows:,} rows of {record.classes} classes, up to {each} of each shown",
        f"nearest to the {by} of {record.dataset}",
        "from " + ", ".join(source.text for source in record.sources),
        *(("contains query or validation images",) if record.leaks else ()),
    )
    return Sheet(kind="Corpus", title=name, facts=facts, thumbnail=None, tiles=tuple(tiles[:MOST]))


def _nearest(arrays: CorpusArrays, label: int, count: int) -> np.ndarray:
    own = np.flatnonzero(arrays.labels == label)
    return own[np.argsort(-arrays.cosines[own], kind="stable")][:count]


def _name(features: FeatureSet, label: int) -> str:
    classes = features.classes
    return classes[label] if label < len(classes) else f"class {label}"


def _cache(root: Path, dataset: str, key: str) -> FeatureSet | None:
    """Open the cache of a source; None if it is gone or damaged."""
    try:
        (summary, *_) = find_summaries(root, dataset, key=key)
        return Cache.open(summary.path).feature_set()
    except FeatcacheError:
        return None


class _Images:
    """Images of the rows of a corpus."""

    def __init__(
        self, caches: list[FeatureSet], number: dict[int, int], record: CorpusRecord
    ) -> None:
        self._caches, self._number, self._record = caches, number, record
        self._originals, self._places = Originals(caches), PatchPlaces(caches)

    def tile(self, arrays: CorpusArrays, i: int, rank: int, title: str) -> Tile:
        source, row = int(arrays.source[i]), int(arrays.row[i])
        cosine, dataset = float(arrays.cosines[i]), self._record.sources[source].dataset
        at = self._number.get(source)
        if at is None or row >= len(self._caches[at].listing):
            gone = "its cache is gone"
            return self._made(rank, title, f"row {row}", dataset, cosine, None, gone)
        small, problem = self._thumbnail(at, row)
        name = self._caches[at].listing.ids[row]
        marks: tuple[Mark, ...] = ()
        if self._record.of == "patches":
            count = self._caches[at].components[self._record.sources[source].component].shape[0]
            box = self._places.of(at, row, int(arrays.part[i]), count).box
            marks = () if box is None else (Mark(box=box, rank=rank, cosine=cosine),)
        return self._made(rank, title, name, dataset, cosine, small, problem, marks)

    def _thumbnail(self, at: int, row: int) -> tuple[Thumbnail | None, str]:
        try:
            return thumbnail(self._originals.pixels(at, row)), ""
        except UnreadableImageError as error:
            return None, error.reason

    def _made(
        self,
        rank: int,
        title: str,
        name: str,
        dataset: str,
        cosine: float,
        small: Thumbnail | None,
        problem: str,
        marks: tuple[Mark, ...] = (),
    ) -> Tile:
        return Tile(
            ranks=(rank,),
            title=title,
            id=name,
            tags=(dataset,),
            cosine=cosine,
            thumbnail=small,
            problem=problem,
            marks=marks,
        )
