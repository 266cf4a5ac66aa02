"""Read columns of an untrusted parquet file in batches of limited size.

Needs pyarrow from 14.0.1 on: earlier ones run code that a file brings (CVE-2023-47248).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from featcache.errors import ImportedFileError
from featcache.importers.arrays import RATIO, RATIO_FROM
from featcache.importers.contents import Array
from featcache.limits import ARRAYS, WORDS
from featcache.paths import open_regular
from featcache.scarcity import lacking

OLDEST = (14, 0, 1)
BATCH = 4096
"""Rows decoded at once."""
LONGEST_HEADER = 64 << 20
"""Most bytes of one text or list in the metadata of a file."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Name and kind of a column."""

    name: str
    kind: str
    """features (a list of floating-point numbers), integer, text or other."""


class ParquetFile:
    """An open file; a context manager.

    Raises:
        ImportedFileError: Here and from every method, if pyarrow is missing or too old, or the
            file is none, is damaged, or would take more memory than its size allows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        parquet = _pyarrow()
        self._file: Any = None
        self._raw = None
        try:
            self._raw = open_regular(path, ARRAYS)
            self._file = parquet.ParquetFile(
                self._raw,
                thrift_string_size_limit=LONGEST_HEADER,
                thrift_container_size_limit=1 << 20,
                memory_map=False,
            )
            self.schema = self._file.schema_arrow
            self.rows: int = self._file.metadata.num_rows
        except Exception as error:  # pyarrow's own, and whatever a stranger's bytes lead to
            self.close()
            raise self._broken(error) from error

    def __enter__(self) -> "ParquetFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._raw is not None:
            self._raw.close()

    def columns(self) -> list[Column]:
        """List the columns in the file's order."""
        return [Column(name=field.name, kind=_kind(field.type)) for field in self.schema]

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return the names that Hugging Face's `datasets` wrote for an integer column, or none."""
        told = (self.schema.metadata or {}).get(b"huggingface", b"")
        if not told or len(told) > WORDS.value():
            return ()
        try:
            names = json.loads(told)["info"]["features"][column]["names"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return ()
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return tuple(names) if is_list else ()

    def features(self, column: str) -> Float[np.ndarray, "n d"]:
        """Read a column of lists as rows."""
        self._check_sizes(column)
        parts: list[Array] = []
        width, start = None, 0
        for piece in self._batches(column):
            flat, lengths = self._numbers(piece, column)
            for at in np.flatnonzero(lengths != (lengths[0] if width is None else width))[:1]:
                raise ImportedFileError(
                    f"Column '{column}' of {self.path} has {int(lengths[at])} numbers in row "
                    f"{start + int(at)} and {int(lengths[0] if width is None else width)} before: "
                    f"its rows come from different models. Keep those of one."
                )
            width = int(lengths[0])
            parts.append(flat.reshape(len(lengths), width))
            start += len(lengths)
        return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)

    def values(self, column: str) -> list[Any]:
        """Read a column of numbers or texts; an empty cell is None."""
        self._check_sizes(column)
        return [value for piece in self._batches(column) for value in piece.to_pylist()]

    def _batches(self, column: str) -> list[Any]:
        pieces, total = [], 0
        try:
            for batch in self._file.iter_batches(
                batch_size=BATCH, columns=[column], use_threads=False
            ):
                total += batch.nbytes
                if total > ARRAYS.value():
                    raise self._too_large(column, total)
                if batch.num_rows:
                    pieces.append(batch.column(0))
        except ImportedFileError:
            raise
        except Exception as error:  # as above
            raise self._broken(error) from error
        return pieces

    def _numbers(
        self, piece: Any, column: str
    ) -> tuple[Shaped[np.ndarray, " m"], Shaped[np.ndarray, " n"]]:
        """Return the concatenated numbers of all rows, and the length of each row."""
        import pyarrow.compute as compute

        try:
            lists = getattr(piece, "storage", piece)
            inner = lists.flatten()
            if lists.null_count or inner.null_count:
                raise ImportedFileError(
                    f"Column '{column}' of {self.path} has empty cells. Leave those rows out."
                )
            lengths = np.asarray(compute.list_value_length(lists))
            return np.asarray(inner), lengths
        except ImportedFileError:
            raise
        except Exception as error:  # as above
            raise self._broken(error) from error

    def _check_sizes(self, column: str) -> None:
        """Check the sizes in the metadata before anything is decoded."""
        told = self._file.metadata
        size = self.path.stat().st_size
        total = 0
        for group in range(told.num_row_groups):
            row_group = told.row_group(group)
            for at in range(row_group.num_columns):
                leaf = row_group.column(at)
                if leaf.path_in_schema.split(".")[0] == column:
                    total += max(leaf.total_uncompressed_size, 2 * leaf.num_values)
        if total > ARRAYS.value():
            raise self._too_large(column, total)
        if total > max(RATIO_FROM, RATIO * size):
            raise ImportedFileError(
                f"Column '{column}' of {self.path} unpacks from {size} to {total} bytes, which no "
                f"features do. Write it again."
            )

    def _too_large(self, column: str, total: int) -> ImportedFileError:
        return ImportedFileError(
            f"Column '{column}' of {self.path} takes {total} bytes; up to {ARRAYS.value()} are "
            f"read. Split the file, or raise {ARRAYS.variable}."
        )

    def _broken(self, error: Exception) -> ImportedFileError:
        if isinstance(error, ImportedFileError):
            return error
        if isinstance(error, FileNotFoundError):
            return ImportedFileError(f"There is no file {self.path}; check the path.")
        why = lacking(error) or " ".join(str(error).split())[:200]
        return ImportedFileError(
            f"{self.path} is not a sound parquet file ({why}). Copy it again, or write it again."
        )


def _pyarrow() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportedFileError(
            "Parquet files are read by pyarrow, which is not installed here. Install it with: "
            "pip install 'featcache[data]'"
        ) from error
    parts = tuple(int(p) if p.isdecimal() else 0 for p in pyarrow.__version__.split(".")[:3])
    if parts < OLDEST:
        raise ImportedFileError(
            f"pyarrow {pyarrow.__version__} can run code that a parquet file brings. Install "
            f"{'.'.join(map(str, OLDEST))} or later: pip install -U pyarrow"
        )
    return parquet


def _kind(kind: Any) -> str:
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)
    if types.is_dictionary(kind):
        kind = kind.value_type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if is_list and types.is_floating(kind.value_type):
        return "features"
    if types.is_integer(kind):
        return "integer"
    return "text" if types.is_string(kind) or types.is_large_string(kind) else "other"
