"""Queries of a csv or tsv file: one image a row, with or without a label.

Columns and options are those of `csv:` (`layouts/own/csv_file.py`), but only the path is needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from featcache.errors import SourceError
from featcache.sources.layouts.own.below import path_below
from featcache.sources.layouts.own.class_names import number_in, read_names
from featcache.sources.layouts.own.csv_file import OPTIONS
from featcache.sources.layouts.own.csv_labels import CsvRow, LabelledTable, label_columns
from featcache.sources.layouts.own.csv_rows import open_table
from featcache.sources.layouts.own.files import existing_file, image_root
from featcache.sources.layouts.own.options import split_options
from featcache.sources.layouts.split_names import split_of
from featcache.sources.queries.image import Queries, QueryImage
from featcache.sources.trees.folder import FolderTree
from featcache.sources.trees.names import id_of
from featcache.text.templates import clean_name


def in_table(text: str, columns: Mapping[str, str], split: str | None = None) -> Queries:
    """Open a table; rows are read while they are gone through.

    Args:
        text: The file, with or without options: `photos.csv?label=species`.
        columns: path, label -> name of its column, for those that no option names.
        split: Only rows of this split.

    Raises:
        SourceError: If the file cannot be read or its columns are not clear, and for a row with
            another number of fields where it is gone through.
        UsageError: If an option is wrong.
        UnknownNameError: If there is no such option.
    """
    path, options = split_options(text, OPTIONS)
    options = {**columns, **options}
    file = existing_file(path, "a csv or tsv file")
    names = read_names(options["names"]) if "names" in options else ()
    spec = f"csv:{text}"
    table = open_table(file, options.get("delimiter", ""), spec, columns=1)
    labelled = label_columns(table, options, spec, needed=("path",))
    if split is not None and "split" not in labelled.columns:
        raise SourceError(f"{file} has no column of splits, so there is no split '{split}' in it.")
    tree = FolderTree(image_root(file, options))
    rows = (row for row in labelled.rows() if split is None or split_of(row.split) == split)
    return Queries(
        images=_images(rows, path, tree, names), notes=lambda: _notes(labelled, tree.root)
    )


def _images(
    rows: Iterator[CsvRow], table: str, tree: FolderTree, names: Sequence[str]
) -> Iterator[QueryImage]:
    for row in rows:
        name = id_of(row.path) or f"{table}, line {row.line}"
        label = _label(row.label, names)
        try:
            below = path_below(row.path, tree.root, f"Line {row.line} of {table}")
        except SourceError as error:
            yield QueryImage(name, None, label, f"cannot be read: {error}")
            continue
        place = tree.find(below)
        reason = "" if place else f"cannot be read: there is no such file in {tree.root}"
        yield QueryImage(name, place, label, reason)


def _label(written: str | None, names: Sequence[str]) -> str | None:
    """Return the name of a class as a listing of the table would have it."""
    text = (written or "").strip()
    if not text:
        return None
    number = number_in(text)
    if number is None:
        return clean_name(text) or None
    return names[number] if 0 <= number < len(names) else str(number)


def _notes(table: LabelledTable, root: Path) -> list[str]:
    return [f"{table.note} Paths are relative to {root}."]
