"""Read untrusted .npy files, and raw numbers of a type and width given by the user."""

import io
import math
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Shaped

from featcache.errors import ImportedFileError
from featcache.importers.arrays import read_header
from featcache.importers.contents import Array
from featcache.limits import ARRAYS
from featcache.paths import open_regular
from featcache.scarcity import lacking
from featcache.wording import Argument


def read_npy(path: Path) -> Array:
    """Read an .npy file; its header is compared with its size before anything is allocated.

    Raises:
        ImportedFileError: If it is none, is damaged or too large, or needs unpickling.
    """
    try:
        with open_regular(path, ARRAYS) as file:
            shape, fortran, dtype = read_header(cast("io.BufferedIOBase", file))
            rest = path.stat().st_size - file.tell()
            if dtype.hasobject:
                raise ImportedFileError(
                    f"{path} holds Python objects, which could run code when read. Save numbers, "
                    f"or texts as numpy.array(values, dtype=str)."
                )
            if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != rest:
                raise ImportedFileError(
                    f"{path} says shape {list(shape)} of {dtype} but has {rest} bytes. The file is "
                    f"damaged; write it again with numpy.save."
                )
            data = file.read(rest)
            return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    except FileNotFoundError as error:
        raise ImportedFileError(f"There is no file {path}; check the path.") from error
    except (OSError, ValueError, EOFError, MemoryError, OverflowError) as error:
        raise ImportedFileError(
            f"{path} is not a sound .npy file ({lacking(error) or error}). Write it again with "
            f"numpy.save."
        ) from error


def read_raw(path: Path, dtype: str | None, dim: int | None) -> Shaped[np.ndarray, "n d"]:
    """Read a file of numbers alone, as numpy.memmap writes it.

    Args:
        path: The file.
        dtype: Type of the numbers: float16, float32 or float64.
        dim: Numbers of each row.

    Raises:
        ImportedFileError: If type or width are not given, or do not divide the file's size.
    """
    if dtype not in ("float16", "float32", "float64") or dim is None or dim < 1:
        raise ImportedFileError(
            f"{path} holds numbers alone: neither their type nor the width of a row stands in it. "
            "Give both, as ",
            Argument("dtype", "float16"),
            " and ",
            Argument("dim", 512),
            ".",
        )
    try:
        with open_regular(path, ARRAYS) as file:
            data = file.read(ARRAYS.value() + 1)
    except (OSError, MemoryError) as error:
        why = lacking(error) or getattr(error, "strerror", None) or error
        raise ImportedFileError(f"{path} cannot be read ({why}). Check the file.") from error
    each = np.dtype(dtype).itemsize * dim
    if not data or len(data) % each:
        raise ImportedFileError(
            f"{path} has {len(data)} bytes, which are no rows of {dim} numbers of {dtype} ({each} "
            f"bytes each). Check both, or whether the file was written to its end."
        )
    return np.frombuffer(data, dtype=dtype).reshape(-1, dim)
