"""Parquet shards of Hugging Face: an image column, and a label column with its class names.

data/train-00000-of-00017.parquet    image struct<bytes, path>, label int64
the schema's metadata                {"info": {"features": {"label": {"names": [...]}}}}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.parquet import huggingface_features
from featcache.paths import as_text
from featcache.places import Place
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.below import path_below
from featcache.sources.layouts.own.class_names import given_names, read_names
from featcache.sources.layouts.own.container import Container
from featcache.sources.layouts.own.csv_columns import USUAL, choice, find_columns
from featcache.sources.layouts.own.json_file import label_text
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.layouts.own.parquet_file import open_parquet, read_columns
from featcache.sources.layouts.own.parquet_place import ParquetPlace, ParquetReader
from featcache.sources.layouts.own.shards import Shard, configurations
from featcache.sources.trees.folder import FolderTree

_LABELS = {"label": (*USUAL["label"], "fine_label")}


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of a shard, from its schema."""

    leaf: str
    """The column of bytes: image.bytes, or image where it is no struct."""
    path: str
    """The column of paths, image.path; empty where there is none."""
    label: str
    is_number: bool
    names: tuple[str, ...] | None
    """Class names in label order, as the schema has them."""


def list_parquet(
    root: Path, shards: Sequence[Shard], options: Mapping[str, str], name: str, spec: str
) -> Dataset:
    """List the images of parquet shards.

    Args:
        root: The folder that the names of the shards are below.
        shards: At least one.
        options: `image` and `label`, names of columns; `names`, a file of class names.
        name: Name of the data set.
        spec: How the reader calls the source, for messages.

    Raises:
        SourceError: If a shard is damaged, its columns are not clear, or shards differ.
    """
    columns: _Columns | None = None
    images: LabelledImages | None = None
    tree = FolderTree(root)
    for shard in shards:
        container = Container(shard.path)
        file = open_parquet(shard.path)
        found = _columns(file.schema_arrow, shard, options, spec)
        if columns is None or images is None:
            columns = found
            reader = ParquetReader(columns.leaf)
            names = read_names(options["names"]) if "names" in options else columns.names
            images = LabelledImages(name, unit="row", names=names, numbers=columns.is_number)
            said = f"Columns: image from '{columns.leaf.partition('.')[0]}', label from "
            images.notes.append(f"{said}'{columns.label}'.")
        if found != columns:
            raise SourceError(
                f"{shard.path} has other columns or class names than {shards[0].path}; expected "
                f"the shards of one data set."
            )
        _add(images, shard, container, file, columns, reader, tree)
    if images is None:
        raise SourceError(f"{root} has no parquet files; expected at least one.")
    return images.dataset(name, root)


def check_one_configuration(shards: Sequence[Shard], spec: str) -> None:
    """Refuse the shards of several configurations, which are several data sets.

    Args:
        shards: Those of a folder that declares no configurations.
        spec: How the reader calls the source, for the message.

    Raises:
        SourceError: If there are several; the message names them.
    """
    found = configurations(shard.name for shard in shards)
    if len(found) > 1:
        names = ", ".join(f"{name or '.'}/" for name in sorted(found))
        first = next(name for name in sorted(found) if name)
        raise SourceError(
            f"The parquet files lie in several folders, as configurations of a data set do: "
            f"{names}. Name one of them: {spec.partition('?')[0]}/{first}."
        )


def _add(
    images: LabelledImages,
    shard: Shard,
    container: Container,
    file: Any,
    columns: _Columns,
    reader: ParquetReader,
    tree: FolderTree,
) -> None:
    """Take the rows of one shard; only small columns are read."""
    without = _groups_without_bytes(file, columns.leaf)
    wanted = [columns.label, *([columns.path] if without and columns.path else [])]
    group_before, row = -1, 0
    for within, (group, values) in enumerate(read_columns(shard.path, file, wanted)):
        row = row + 1 if group == group_before else 0
        group_before = group
        where = f"Row {within} of {shard.path}"
        try:
            label = label_text(values[0])
        except ValueError as error:
            raise SourceError(f"The label of {where} is {error}; expected one label.") from error
        if label == "-1" and columns.names is not None:  # what the library writes for no label
            label = None
        place: Place | None = ParquetPlace(reader, container, group, row, within)
        if group in without:
            place = _beside(values[1] if len(values) > 1 else None, shard, tree, where)
        if place is not None:
            images.add(f"{shard.name}/{within}", place, label, shard.split, line=within)


def _beside(path: object, shard: Shard, tree: FolderTree, where: str) -> Place:
    """Return the file that a row names instead of holding its bytes."""
    if not isinstance(path, str):
        raise SourceError(f"{where} holds neither the bytes of an image nor its path.")
    folder = as_text(shard.path.parent.relative_to(tree.root))
    below = path_below(path, shard.path.parent, where)
    place = tree.find(below if folder == "." else f"{folder}/{below}")
    if place is None:
        raise SourceError(
            f"{where} names {path[:200]}, which is not beside it; expected the images themselves "
            f"in the parquet file, or their files there."
        )
    return place


def _groups_without_bytes(file: Any, leaf: str) -> set[int]:
    """Return the row groups in which every image is a path only, as their statistics say."""
    found = set()
    for group in range(file.metadata.num_row_groups):
        facts = file.metadata.row_group(group)
        for i in range(facts.num_columns):
            column = facts.column(i)
            if column.path_in_schema == leaf and column.statistics is not None:
                nulls = column.statistics.null_count
                if facts.num_rows and nulls == facts.num_rows:
                    found.add(group)
    return found


def _columns(schema: Any, shard: Shard, options: Mapping[str, str], spec: str) -> _Columns:
    features = huggingface_features(schema)
    leaf, path = _image_column(schema, features, shard, options, spec)
    image = leaf.partition(".")[0]
    classes = {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        and name in schema.names
    }  # fmt: skip
    label = _label_column(schema, image, classes, shard, options, spec)
    kind = str(schema.field(label).type)
    names = given_names(map(str, classes[label]), str(shard.path)) if label in classes else None
    is_number = not kind.startswith(("string", "large_string", "dictionary"))
    return _Columns(leaf, path, label, is_number, names)


def _image_column(
    schema: Any, features: Mapping[str, Any], shard: Shard, options: Mapping[str, str], spec: str
) -> tuple[str, str]:
    """Return the column of bytes, and that of paths or an empty text."""
    fitting: dict[str, tuple[str, str]] = {}
    for field in schema:
        fields = {field.type.field(i).name for i in range(field.type.num_fields)}
        if "bytes" in fields and str(field.type).startswith("struct"):
            path = f"{field.name}.path" if "path" in fields else ""
            fitting[field.name] = (f"{field.name}.bytes", path)
        elif str(field.type) in ("binary", "large_binary"):
            fitting[field.name] = (field.name, "")
    declared = [n for n in fitting if _type_of(features.get(n)) == "Image"]
    if "image" in options:
        declared = [options["image"]] if options["image"] in fitting else []
        fitting = {n: v for n, v in fitting.items() if n in declared}
    candidates = declared or list(fitting)
    if len(candidates) == 1:
        return fitting[candidates[0]]
    names = ", ".join(f"'{n}'" for n in (candidates or schema.names)[:20])
    what = "several columns of images" if candidates else "no column of images (bytes) among"
    raise SourceError(
        f"{shard.path} has {what}: {names}. Choose one with ",
        choice(spec, "image", candidates[0] if candidates else "COLUMN"),
        ".",
    )


def _label_column(
    schema: Any,
    image: str,
    classes: Mapping[str, Sequence[object]],
    shard: Shard,
    options: Mapping[str, str],
    spec: str,
) -> str:
    """Return the label column: the one with class names, else one of a usual name."""
    chosen = {"label": options["label"]} if "label" in options else {}
    if not chosen and len(classes) == 1:
        return next(iter(classes))
    header = list(classes)
    if chosen or not header:
        header = [f.name for f in schema if f.name != image and _may_be_label(str(f.type))]
    usual = {"label": tuple(header)} if classes and not chosen else _LABELS
    found = find_columns(header, chosen, str(shard.path), spec, usual=usual, needed=("label",))
    return header[found["label"]]


def _may_be_label(kind: str) -> bool:
    return kind.startswith(("int", "uint", "string", "large_string", "bool", "dictionary"))


def _type_of(feature: object) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""
