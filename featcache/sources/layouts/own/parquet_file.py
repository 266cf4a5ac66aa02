"""Reading untrusted parquet files with the optional pyarrow, a few rows at a time."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.parquet import load_pyarrow
from featcache.paths import open_descriptor
from featcache.scarcity import lacking

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
        return parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)


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
        columns: Names; a field of a struct as `image.path`.

    Raises:
        SourceError: If a part of the file is damaged, or a value is longer than `LONGEST`.
    """
    if not columns:
        for group in range(file.metadata.num_row_groups):
            for _ in range(file.metadata.row_group(group).num_rows):
                yield group, []
        return
    for group in range(file.metadata.num_row_groups):
        with reading(path):
            rows = _rows_at_once(path, file, group, columns)
            batches = file.iter_batches(
                batch_size=rows, row_groups=[group], columns=list(columns), use_threads=False
            )
        while True:
            with reading(path):
                batch = next(batches, None)
                if batch is None:
                    break
                fields = [_field(batch, name) for name in columns]
                for name, field in zip(columns, fields, strict=True):
                    _check_lengths(path, name, field)
                values = [field.to_pylist() for field in fields]
            for row in zip(*values, strict=True):
                yield group, list(row)


def check_ratio(path: Path, file: Any, group: int, column: str) -> None:
    """Refuse a column of a row group that unpacks to far more than its size.

    Args:
        path: Path of the file, for messages.
        file: File from `open_parquet`.
        group: The row group.
        column: Name; a field of a struct as `image.bytes`.

    Raises:
        SourceError: If it does.
    """
    for chunk in _chunks(file, group, column):
        packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
        if unpacked > max(RATIO_FROM, RATIO * packed):
            raise SourceError(
                f"Column '{column}' of {path} unpacks from {packed} to {unpacked} bytes in row "
                f"group {group}, which no images or labels do; get a sound copy of it."
            )


def _rows_at_once(path: Path, file: Any, group: int, columns: Sequence[str]) -> int:
    """Return how many rows are decoded at once: a long value may be stored once for all of them."""
    longest = 1
    for name in columns:
        check_ratio(path, file, group, name)
        for chunk in _chunks(file, group, name):
            if chunk.physical_type == "BYTE_ARRAY":  # no value has more bytes than its column
                longest = max(longest, chunk.total_uncompressed_size)
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


def _chunks(file: Any, group: int, name: str) -> Iterator[Any]:
    """Yield the parts of a row group that hold a column, or the fields of it."""
    facts = file.metadata.row_group(group)
    for i in range(facts.num_columns):
        chunk = facts.column(i)
        if chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}."):
            yield chunk


def _field(batch: Any, name: str) -> Any:
    """Return a column, or a field of a struct column where its name has a dot."""
    if name in batch.schema.names:
        return batch.column(batch.schema.get_field_index(name))
    column, _, field = name.rpartition(".")
    return batch.column(batch.schema.get_field_index(column)).field(field)
