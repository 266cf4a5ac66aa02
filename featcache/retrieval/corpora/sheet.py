"""The contact sheet of a corpus: the images that each class took, nearest first."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from featcache.counts import counted
from featcache.errors import FeatcacheError
from featcache.imaging.decode import UnreadableImageError
from featcache.pages.sheet import MOST, Mark, Section, Sheet, Tile
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
HEADED = 3
"""Fewest images of a class for which it has a heading; with fewer, a class is named below each."""


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
    with_rows = len(np.unique(arrays.labels))
    each = max(1, min(EACH, MOST // with_rows))
    tiles: dict[int, list[Tile]] = {}
    for label, rank, i in _nearest(arrays, each)[:MOST]:
        tile = images.tile(arrays, i, rank, _name(features, label))
        tiles.setdefault(label, []).append(tile)
    cut = f", {MOST} of {with_rows:,} classes that have rows" if with_rows > MOST else ""
    by = {"class": "text anchors", "anchor": "texts", "image": "shots"}[record.by]
    facts = (
        f"{record.rows:,} rows of {record.classes} classes, up to {each} of each shown{cut}",
        f"nearest to the {by} of {record.dataset}",
        "from " + ", ".join(source.text for source in record.sources),
        *(("contains query or validation images",) if record.leaks else ()),
    )
    if each >= HEADED:
        sections = tuple(_section(arrays, label, of_class) for label, of_class in tiles.items())
    else:
        sections = (Section(tiles=tuple(chain.from_iterable(tiles.values()))),)
    return Sheet(kind="Corpus", title=name, facts=facts, thumbnail=None, sections=sections)


def _section(arrays: CorpusArrays, label: int, tiles: Sequence[Tile]) -> Section:
    cosines = arrays.cosines[arrays.labels == label]
    facts = (
        counted(len(cosines), "row"),
        f"cosines {cosines.min():.3f} to {cosines.max():.3f}",
    )
    return Section(title=tiles[0].title, facts=facts, tiles=tuple(tiles))


def _nearest(arrays: CorpusArrays, count: int) -> list[tuple[int, int, int]]:
    """Return label, rank and position of the nearest rows of each class, class by class."""
    order = np.lexsort((-arrays.cosines, arrays.labels))
    labels = arrays.labels[order]
    ranks = np.arange(len(order)) - np.searchsorted(labels, labels)
    shown = ranks < count
    columns = (labels[shown], ranks[shown] + 1, order[shown])
    return list(zip(*(column.tolist() for column in columns), strict=True))


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
        if not self._is_there(at, source, arrays, i):
            other = "is no longer the image of this row: the cache was made again"
            return self._made(rank, title, f"row {row}", dataset, cosine, None, other)
        small, problem = self._thumbnail(at, row)
        name = self._caches[at].listing.ids[row]
        marks: tuple[Mark, ...] = ()
        if self._record.of == "patches":
            count = self._caches[at].components[self._record.sources[source].component].shape[0]
            box = self._places.of(at, row, int(arrays.part[i]), count).box
            marks = () if box is None else (Mark(box=box, rank=rank, cosine=cosine),)
        return self._made(rank, title, name, dataset, cosine, small, problem, marks)

    def _is_there(self, at: int, source: int, arrays: CorpusArrays, i: int) -> bool:
        """Tell whether the row that a vector came from has this vector still."""
        cache, component = self._caches[at], self._record.sources[source].component
        try:
            found = cache.rows(component, arrays.row[i : i + 1]).numpy()
        except (FeatcacheError, KeyError):  # it lacks the component or the row
            return False
        vectors = found.reshape(-1, found.shape[-1])
        part = int(arrays.part[i])
        return part < len(vectors) and np.array_equal(vectors[part], arrays.values[i])

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
