"""Reading untrusted parquet files with the optional pyarrow, a few rows at a time."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.parquet import load_pyarrow
from featcache.paths import open_descriptor
from featcache.scarcity import lacking
from featcache.sources.layouts.own.parquet_pages import pages

BATCH = 8_192
"""Rows of small columns that are decoded at once."""

DECODED = 64 << 20
"""Bytes of small columns that are decoded at once."""

LONGEST = 1 << 20
"""Bytes of one value of a small column, a label or a path."""

RATIO, RATIO_FROM = 200, 64 << 20
"""A column that unpacks to more than `RATIO_FROM` bytes and `RATIO` times its size is refused."""


def open_parquet(path: Path) -> Any:
    """Open a parquet file; what it returns is pyarrow's `ParquetFile`.

    Raises:
        SourceError: If it is none, or pyarrow is missing.
    """
    parquet = load_pyarrow(SourceError)
    with reading(path):
        os.close(open_descriptor(path))  # a pipe or a device is refused
        file = import_module("pyarrow").OSFile(os.fspath(path))
        opened = parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    facts = opened.metadata
    for group in range(facts.num_row_groups):
        # pyarrow ends the process where a row group has more columns than the schema.
        if (found := facts.row_group(group).num_columns) != facts.num_columns:
            raise _lying(path, f"{facts.num_columns} columns and {found} in row group {group}")
    return opened


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises into one sentence.

    Raises:
        SourceError: If the file cannot be read as parquet.
    """
    arrow_error = import_module("pyarrow").ArrowException
    try:
        yield
    except (arrow_error, MemoryError, OSError, ValueError) as error:
        why = lacking(error) or " ".join(str(error).split())[:200]
        raise SourceError(
            f"{path} could not be read as parquet ({why}); get a whole copy of it."
        ) from error


def read_columns(path: Path, file: Any, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Yield the row group and the values of small columns, row by row, a batch at a time.

    Args:
        path: Path of the file, for messages.
        file: File from `open_parquet`.
        columns: Names, at least one; a field of a struct as `image.path`.

    Raises:
        SourceError: If a part of the file is damaged, has another number of rows than the file
            says, or a value is longer than `LONGEST`.
    """
    facts = file.metadata
    claimed = [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
    if sum(claimed) != facts.num_rows:
        raise _lying(path, f"{facts.num_rows} rows and its row groups {sum(claimed)}")
    _check_spans(path, file, columns)
    for group, count in enumerate(claimed):
        found = 0
        for row in _rows_of(path, file, group, columns):
            found += 1
            yield group, row
        if found != count:
            raise _lying(path, f"{count} rows of row group {group}, which holds {found}")


def _rows_of(path: Path, file: Any, group: int, columns: Sequence[str]) -> Iterator[list[Any]]:
    with reading(path):
        rows = _rows_at_once(path, file, group, columns)
        batches = file.iter_batches(
            batch_size=rows, row_groups=[group], columns=list(columns), use_threads=False
        )
    while True:
        with reading(path):
            batch = next(batches, None)
            if batch is None:
                return
            fields = [_field(batch, name) for name in columns]
            for name, field in zip(columns, fields, strict=True):
                _check_lengths(path, name, field)
            values = [field.to_pylist() for field in fields]
        yield from map(list, zip(*values, strict=True))


def _lying(path: Path, claims: str) -> SourceError:
    return SourceError(f"{path} says that it has {claims}; get a whole copy of it.")


def check_pages(path: Path, file: Any, group: int, column: str) -> int:
    """Refuse a column of a row group that unpacks to far more than its size.

    Args:
        path: Path of the file.
        file: File from `open_parquet`.
        group: The row group.
        column: Name; a field of a struct as `image.bytes`.

    Returns:
        Bytes of its largest page when unpacked; no value has more.

    Raises:
        SourceError: If it does, or its pages are not where the file says, or hold another number of
            rows.
    """
    largest = packed = unpacked = 0
    rows = file.metadata.row_group(group).num_rows
    handle = open_descriptor(path)
    try:
        for number, chunk in _chunks(file, group, column):
            values = 0
            # What pyarrow allocates stands before each page.
            for page in pages(handle, *_span(chunk)):
                values += page.values
                packed, unpacked = packed + page.packed, unpacked + page.unpacked
                largest = max(largest, page.unpacked)
                if unpacked > max(RATIO_FROM, RATIO * packed):
                    raise SourceError(
                        f"Column '{column}' of {path} unpacks from {packed} to {unpacked} bytes in "
                        f"row group {group}, which no images or labels do; get a sound copy of it."
                    )
            is_list = file.schema.column(number).max_repetition_level > 0
            if values != rows and not is_list:
                raise _lying(path, f"{rows} rows in row group {group}, and '{column}' {values}")
    finally:
        os.close(handle)
    return largest


def _check_spans(path: Path, file: Any, columns: Sequence[str]) -> None:
    """Refuse row groups that share bytes: a file of them lists any number of images."""
    groups = range(file.metadata.num_row_groups)
    with reading(path):
        spans = sorted(
            _span(chunk) for g in groups for name in columns for _, chunk in _chunks(file, g, name)
        )
    for (start, count), (following, _) in pairwise(spans):
        if start + count > following:
            raise _lying(path, "row groups that lie over each other")


def _span(chunk: Any) -> tuple[int, int]:
    """Return where pyarrow begins to read a column of a row group, and how many bytes it has."""
    starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
    return min((s for s in starts if s and s > 0), default=0), chunk.total_compressed_size


def _rows_at_once(path: Path, file: Any, group: int, columns: Sequence[str]) -> int:
    """Return how many rows are decoded at once: a long value may be stored once for all of them."""
    longest = max(1, *(check_pages(path, file, group, name) for name in columns))
    return max(1, min(BATCH, DECODED // longest))


def _check_lengths(path: Path, name: str, values: Any) -> None:
    """Refuse long values before they become Python's: a value may be there once for many rows."""
    compute, kinds = import_module("pyarrow.compute"), import_module("pyarrow.types")
    if kinds.is_dictionary(values.type):
        values = values.dictionary
    kind = values.type
    texts = kinds.is_string(kind) or kinds.is_large_string(kind)
    if not (texts or kinds.is_binary(kind) or kinds.is_large_binary(kind)):
        return
    longest = compute.max(compute.binary_length(values)).as_py() or 0
    if longest > LONGEST:
        raise SourceError(
            f"Column '{name}' of {path} has a value of {longest} bytes; expected labels or paths "
            f"of at most {LONGEST}."
        )


def _chunks(file: Any, group: int, name: str) -> Iterator[tuple[int, Any]]:
    """Yield the parts of a row group that hold a column, or the fields of it, with their number."""
    facts = file.metadata.row_group(group)
    for i in range(facts.num_columns):
        chunk = facts.column(i)
        if chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}."):
            yield i, chunk


def _field(batch: Any, name: str) -> Any:
    """Return a column, or a field of a struct column where its name has a dot."""
    if name in batch.schema.names:
        return batch.column(batch.schema.get_field_index(name))
    column, _, field = name.rpartition(".")
    return batch.column(batch.schema.get_field_index(column)).field(field)
