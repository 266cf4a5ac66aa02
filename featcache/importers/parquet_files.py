"""Read columns of an untrusted parquet file in batches of limited size.

`featcache.parquet` says which pyarrow this needs.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from featcache.errors import ImportedFileError
from featcache.importers.arrays import RATIO, RATIO_FROM
from featcache.importers.contents import Array
from featcache.limits import ARRAYS, WORDS
from featcache.parquet import huggingface_features, load_pyarrow
from featcache.paths import open_regular, read_regular
from featcache.scarcity import lacking

BATCH = 4096
"""Rows decoded at once."""
SLACK = 2 << 30
"""Bytes of address space that pyarrow and its allocator reserve for themselves."""
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
        parquet = load_pyarrow(ImportedFileError)
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
        try:
            return [Column(name=field.name, kind=_kind(field.type)) for field in self.schema]
        except Exception as error:  # names need not be text
            raise self._broken(error) from error

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return the names that Hugging Face's `datasets` wrote for an integer column, or none."""
        match huggingface_features(self.schema).get(column):
            case {"names": list(names)} if all(isinstance(name, str) for name in names):
                return tuple(names)
        return ()

    def features(self, column: str) -> Float[np.ndarray, "n d"]:
        """Read a column of lists as rows."""
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
        return [value for piece in self._batches(column) for value in piece.to_pylist()]

    def _batches(self, column: str) -> list[Any]:
        size = self.path.stat().st_size
        most = min(ARRAYS.value(), max(RATIO_FROM, RATIO * size))
        pieces, total = [], 0
        try:
            # Sizes in the metadata are not used: pyarrow aborts the process on damaged ones.
            with bounded(most):
                for batch in self._file.iter_batches(
                    batch_size=BATCH, columns=[column], use_threads=False
                ):
                    total += batch.nbytes
                    if total > most:
                        raise self._too_large(column, size)
                    if batch.num_rows:
                        pieces.append(batch.column(0))
        except ImportedFileError:
            raise
        except Exception as error:  # as above
            if lacking(error):
                raise self._too_large(column, size) from error
            raise self._broken(error) from error
        found = sum(len(piece) for piece in pieces)
        if found != self.rows:
            raise self._broken(ValueError(f"it claims {self.rows} rows and has {found}"))
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

    def _too_large(self, column: str, size: int) -> ImportedFileError:
        return ImportedFileError(
            f"Column '{column}' of {self.path} unpacks to more than {ARRAYS.value()} bytes, to "
            f"more than {RATIO} times the {size} bytes of the file, or to more than the memory. "
            f"Split the file or write it again, or raise {ARRAYS.variable}."
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


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Limit the address space of this process while a block runs, where the system can.

    A single row of a few bytes may unpack to gigabytes, which pyarrow allocates at once.

    Args:
        most: Bytes that the block may allocate, beside `SLACK`.
    """
    try:
        pages = int(read_regular(Path("/proc/self/statm"), WORDS).split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + most + SLACK
        bounds = [limit, *(b for b in (soft, hard) if b != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    except (OSError, ValueError):  # not on this system; batches are counted in any case
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


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
