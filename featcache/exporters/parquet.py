"""A cache as one parquet table, a row an image, for tools that show embeddings.

    id            string                   as the listing has it
    split         string                   the first of the exported splits that the image is in
    label, class  int32, string            null for unlabelled images
    features      list<float32>[d]         global features as they are stored, of any length
    projection_x, projection_y   float32   coordinates in a plane (`featcache.exporters.projection`)
    neighbors     struct<ids, distances>   itself and the nearest rows: positions, 1 - cosine
    image         struct<bytes, path>      a thumbnail in JPEG; null where the image is not here
    predicted     string                   with `answer`: the class, its probability, and whether
    probability   float32                  it is the label (null for unlabelled images)
    correct       bool
    ...           string                   further columns of the csv file that lists the images;
                                           a name that is taken gets `csv_` in front

Embedding Atlas opens it by these names; `featcache import parquet` reads features, labels, ids and
splits back. Rows are streamed in groups, and the file gets its name when it is whole. Unreadable
images are left out.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from featcache.errors import CacheError, FeatcacheError, TaskError
from featcache.exporters.asked import check_place, check_sizes
from featcache.exporters.nearest import nearest_rows
from featcache.exporters.projection import check_projection, project
from featcache.exporters.reading import CHUNK
from featcache.imaging.decode import UnreadableImageError
from featcache.pages.thumbnails import thumbnail
from featcache.parquet import load_pyarrow
from featcache.paths import expand
from featcache.progress import Report
from featcache.retrieval.originals import Originals
from featcache.sources.base import FurtherColumns
from featcache.sources.registry import further_columns
from featcache.store.format.outputs import make_parents, not_written, replacing
from featcache.types import FeatureSet
from featcache.wording import Argument

Answer = Callable[
    [Int64[np.ndarray, " r"]], tuple[Int64[np.ndarray, " r"], Float[np.ndarray, " r"]]
]
"""Rows of the listing -> predicted labels, and the probability of each."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What was written."""

    path: Path
    rows: int
    columns: tuple[str, ...]
    unreadable: int
    """Images that were left out, because they could not be read when they were encoded."""
    without_thumbnail: int
    """Images without a thumbnail, because they are not here any more or have changed."""
    lost: str
    """Why further columns of the list of images are missing; empty if none are."""


def export_parquet(
    features: FeatureSet,
    out: Path | str,
    *,
    splits: Sequence[str] = (),
    projection: str = "pca",
    neighbors: int = 0,
    thumbnails: int = 0,
    answer: Answer | None = None,
    progress: Report | None = None,
) -> Table:
    """Write the rows of a cache as a parquet table.

    Args:
        features: The cache.
        out: File to write; one that exists is replaced.
        splits: Splits to write, in this order; none takes all but stored few-shot sets.
        projection: pca, tsne or none.
        neighbors: How many of the nearest other rows to write for each; 0 writes none.
        thumbnails: Longest side of the thumbnails in pixels; 0 writes none.
        answer: Answers of a head for the columns `predicted`, `probability` and `correct`.
        progress: Called as (what, rows done, all rows).

    Raises:
        UsageError: If an argument is wrong, a folder is at `out`, or t-SNE cannot be had.
        UnknownNameError: If a split or the projection is unknown.
        TaskError: If the splits have no usable image.
        CacheError: If pyarrow is missing, or the file cannot be written.

    Example:
        >>> import featcache
        >>> from featcache.exporters.parquet import export_parquet
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> export_parquet(cache, "moths.parquet", splits=["val"]).columns[:4]
        ('id', 'split', 'label', 'class')
    """
    target = expand(Path(out))
    check_place(target)
    check_sizes(neighbors=neighbors, thumbnails=thumbnails)
    parquet = load_pyarrow(CacheError)
    listed, split = _listed(features, splits)
    usable = features.ok[listed]
    rows, split = listed[usable], split[usable]
    if not len(rows):
        raise TaskError(f"No image of {features.listing.dataset} in these splits could be read.")
    check_projection(projection, len(rows))
    with _explained(target):
        make_parents(target)
    plane = project(features, rows, projection)
    near = None
    if neighbors:
        near = nearest_rows(features, rows, neighbors, progress=_named(progress, "comparing"))
    written = _named(progress, "writing")
    pictures = Originals([features]) if thumbnails else None
    further = _further(features)
    lacking = 0
    with _explained(target), replacing(target) as temporary:
        writer: Any = None
        try:
            for start in range(0, len(rows), CHUNK):
                part = slice(start, start + CHUNK)
                columns = _columns(features, rows[part], split[part])
                if plane is not None:
                    columns |= _coordinates(plane[part])
                if near is not None:
                    columns |= _neighbors(near[0][part], near[1][part])
                if pictures is not None:
                    shown = [_picture(pictures, row, thumbnails) for row in rows[part].tolist()]
                    lacking += sum(one is None for one in shown)
                    columns |= _images(shown)
                if answer is not None:
                    columns |= _answers(features, rows[part], answer)
                columns |= _listed_columns(features, rows[part], further.columns, columns)
                table = import_module("pyarrow").table(columns)
                writer = writer or parquet.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
                written(min(start + CHUNK, len(rows)), len(rows))
        finally:
            if writer is not None:
                writer.close()
    return Table(
        path=target,
        rows=len(rows),
        columns=tuple(table.column_names),
        unreadable=len(listed) - len(rows),
        without_thumbnail=lacking,
        lost=further.left_out,
    )


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(*not_written(target, error, Argument("out"))) from error


def _named(progress: Report | None, what: str) -> Callable[[int, int], None]:
    return (lambda done, total: None) if progress is None else partial(progress, what)


def _further(features: FeatureSet) -> FurtherColumns:
    """Return what the list of the images says besides; nothing, and why, if it cannot be read."""
    try:
        return further_columns(features.listing.spec)
    except FeatcacheError as error:
        return FurtherColumns(left_out=str(error))


def _listed_columns(
    features: FeatureSet,
    rows: np.ndarray,
    further: Mapping[str, Mapping[str, str]],
    taken: Collection[str],
) -> dict[str, Any]:
    arrow, ids = import_module("pyarrow"), features.listing.ids
    columns = {}
    for name, texts in further.items():
        found = [texts.get(ids[row]) for row in rows.tolist()]
        values = [None if text is None else _text(text) for text in found]
        free = name
        while free in taken or (free != name and free in further):
            free = f"csv_{free}"
        columns[_text(free)] = arrow.array(values, arrow.string())
    return columns


def _listed(
    features: FeatureSet, splits: Sequence[str]
) -> tuple[Int64[np.ndarray, " r"], np.ndarray]:
    """Return the rows of splits, each once, in the order of the splits, and the split of each."""
    named = splits or [name for name in features.listing.splits if "@" not in name]
    parts = [features.listing.rows(name) for name in named]
    every = np.concatenate([*parts, np.zeros(0, dtype=np.int64)])
    counts = np.array([len(part) for part in parts], dtype=np.int64)
    split = np.repeat(np.array(named, dtype=object), counts)
    _, first = np.unique(every, return_index=True)
    first.sort()  # the first split of a row wins
    return every[first].astype(np.int64), split[first]


def _columns(features: FeatureSet, rows: np.ndarray, split: np.ndarray) -> dict[str, Any]:
    arrow, listing = import_module("pyarrow"), features.listing
    labels, classes = features.labels[rows].tolist(), features.classes
    named = [None if y < 0 else _text(classes[y]) for y in labels]
    values = features.components["global"].take(rows).float().numpy()
    return {
        "id": arrow.array([_text(listing.ids[row]) for row in rows.tolist()]),
        "split": arrow.array([_text(name) for name in split.tolist()]),
        "label": arrow.array([None if y < 0 else y for y in labels], arrow.int32()),
        "class": arrow.array(named, arrow.string()),
        "features": arrow.FixedSizeListArray.from_arrays(
            arrow.array(values.reshape(-1)), values.shape[1]
        ),
    }


def _coordinates(plane: np.ndarray) -> dict[str, Any]:
    arrow = import_module("pyarrow")
    return {
        f"projection_{axis}": arrow.array(np.ascontiguousarray(plane[:, i]))
        for i, axis in enumerate("xy")
    }


def _neighbors(at: np.ndarray, distances: np.ndarray) -> dict[str, Any]:
    arrow = import_module("pyarrow")
    ends = np.arange(len(at) + 1, dtype=np.int32) * at.shape[1]
    lists = {"ids": at.reshape(-1), "distances": distances.reshape(-1)}
    columns = [arrow.ListArray.from_arrays(ends, arrow.array(values)) for values in lists.values()]
    return {"neighbors": arrow.StructArray.from_arrays(columns, names=list(lists))}


def _picture(pictures: Originals, row: int, side: int) -> bytes | None:
    try:
        return thumbnail(pictures.pixels(0, row), side).jpeg
    except UnreadableImageError:
        return None


def _images(shown: Sequence[bytes | None]) -> dict[str, Any]:
    arrow = import_module("pyarrow")
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    values = [None if one is None else {"bytes": one, "path": None} for one in shown]
    return {"image": arrow.array(values, kind)}


def _answers(features: FeatureSet, rows: np.ndarray, answer: Answer) -> dict[str, Any]:
    arrow = import_module("pyarrow")
    predicted, probability = answer(rows)
    labels, classes = features.labels[rows], features.classes
    correct = [None if y < 0 else y == p for y, p in zip(labels, predicted, strict=True)]
    return {
        "predicted": arrow.array([_text(classes[p]) for p in predicted.tolist()]),
        "probability": arrow.array(np.asarray(probability, dtype=np.float32)),
        "correct": arrow.array(correct, arrow.bool_()),
    }


def _text(name: str) -> str:
    """Return a name as UTF-8 can write it: bytes of file names that are none are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
