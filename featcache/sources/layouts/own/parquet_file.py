"""Reading untrusted parquet files with the optional pyarrow, a few rows at a time."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.paths import open_descriptor

OLDEST = (14, 0, 1)
"""Versions of pyarrow before this one run code that a file brings (CVE-2023-47248)."""

BATCH = 8_192
"""Rows of small columns that are decoded at once."""


def load_pyarrow() -> Any:
    """Import pyarrow's parquet module.

    Raises:
        SourceError: If pyarrow is not installed, or too old.
    """
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise SourceError(
            "Parquet files are read with pyarrow, which is not installed. Install it with: "
            "pip install 'featcache[data]'"
        ) from error
    version = tuple(int(part) for part in pyarrow.__version__.split(".")[:3] if part.isdigit())
    if version < OLDEST:
        raise SourceError(
            f"Parquet files are read with pyarrow from 14.0.1 on, and {pyarrow.__version__} is "
            f"installed. Install it with: pip install 'featcache[data]'"
        )
    return parquet


def open_parquet(path: Path) -> Any:
    """Open a parquet file; what it returns is pyarrow's `ParquetFile`.

    Raises:
        SourceError: If it is none, or pyarrow is missing.
    """
    parquet = load_pyarrow()
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
    except (arrow_error, OSError, ValueError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise SourceError(
            f"{path} could not be read as parquet ({why}); get a whole copy of it."
        ) from error


def features_of(schema: Any) -> dict[str, Any]:
    """Return the features that Hugging Face's library wrote into a schema; empty where it did not.

    Args:
        schema: pyarrow's schema.
    """
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        match json.loads(text):
            case {"info": {"features": dict(features)}}:
                return features
    except (ValueError, RecursionError):
        pass
    return {}


def read_columns(path: Path, file: Any, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Yield the row group and the values of small columns, row by row, a batch at a time.

    Args:
        path: Path of the file, for messages.
        file: File from `open_parquet`.
        columns: Names; a field of a struct as `image.path`.

    Raises:
        SourceError: If a part of the file is damaged.
    """
    if not columns:
        for group in range(file.metadata.num_row_groups):
            for _ in range(file.metadata.row_group(group).num_rows):
                yield group, []
        return
    for group in range(file.metadata.num_row_groups):
        with reading(path):
            batches = file.iter_batches(
                batch_size=BATCH, row_groups=[group], columns=list(columns), use_threads=False
            )
        while True:
            with reading(path):
                batch = next(batches, None)
                if batch is None:
                    break
                values = [_field(batch, name).to_pylist() for name in columns]
            for row in zip(*values, strict=True):
                yield group, list(row)


def _field(batch: Any, name: str) -> Any:
    """Return a column, or a field of a struct column where its name has a dot."""
    if name in batch.schema.names:
        return batch.column(batch.schema.get_field_index(name))
    column, _, field = name.rpartition(".")
    return batch.column(batch.schema.get_field_index(column)).field(field)
