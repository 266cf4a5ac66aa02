"""Read the arrays of an untrusted .npz file.

Sizes are checked against each other and against a limit before memory is allocated, and nothing is
unpickled.
"""

import io
import math
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Shaped

from featcache.errors import ImportedFileError
from featcache.limits import ARRAYS
from featcache.paths import open_regular
from featcache.scarcity import lacking

RATIO, RATIO_FROM = 200, 64 << 20
"""An array larger than `RATIO_FROM` bytes and compressed by more than `RATIO` is a zip bomb."""
MEMBERS = 10_000
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
)
"""Errors of zipfile and numpy for damaged, encrypted or unsupported members."""


def read_arrays(path: Path, *, limit: int | None = None) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read every array of an .npz file.

    Args:
        path: File to read.
        limit: Most bytes of all arrays together; None for FEATCACHE_MAX_ARRAYS, 16 GiB by default.

    Raises:
        ImportedFileError: If it is not an .npz file, is damaged, too large, or needs unpickling.
    """
    if not path.is_file():
        what = f"{path} is no regular file" if path.exists() else f"There is no file {path}"
        raise ImportedFileError(f"{what}; give the path of an .npz file.")
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_sizes(path, members, ARRAYS.value() if limit is None else limit)
            return {
                member.filename.removesuffix(".npy"): _read(path, archive, member)
                for member in members
            }
    except _BROKEN as error:
        raise ImportedFileError(
            f"{path} is not a sound .npz file ({lacking(error) or error}). Write it again with "
            f"numpy.savez."
        ) from error


def _check_sizes(path: Path, members: list[zipfile.ZipInfo], limit: int) -> None:
    total = sum(m.file_size for m in members)
    if len(members) > MEMBERS or total > limit:
        raise ImportedFileError(
            f"{path} holds {len(members)} arrays of {total} bytes together; up to {MEMBERS} of "
            f"{limit} bytes are read. Split it into several files, or raise {ARRAYS.variable}."
        )
    names = Counter(m.filename for m in members)
    for member in members:
        plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not plain or not member.filename.endswith(".npy") or names[member.filename] > 1:
            raise ImportedFileError(
                f"{path} holds '{member.filename}', which is no array as numpy saves it. "
                f"Write the file again with numpy.savez."
            )
        if member.file_size > max(RATIO_FROM, RATIO * member.compress_size):
            raise ImportedFileError(
                f"'{member.filename}' in {path} unpacks from {member.compress_size} to "
                f"{member.file_size} bytes, which no features do. Write it again with numpy.savez."
            )


def _read(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> Shaped[np.ndarray, "..."]:
    with archive.open(member) as file:
        shape, fortran, dtype = read_header(cast("io.BufferedIOBase", file))
        if dtype.hasobject:
            raise ImportedFileError(
                f"'{member.filename}' in {path} holds Python objects, which could run code when "
                f"read. Save names as text instead: numpy.array(names, dtype=str)."
            )
        data = file.read()
    if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ImportedFileError(
            f"'{member.filename}' in {path} says shape {list(shape)} of {dtype} but has "
            f"{len(data)} bytes. The file is damaged; write it again with numpy.savez."
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def read_header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read what stands before the numbers of an .npy file: shape, Fortran order, type.

    Raises:
        ValueError: If it is none that numpy writes.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array format {version} is unknown")
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    try:
        shape, fortran, dtype = read(file)
    # numpy parses it as Python: SyntaxError, TokenError, IndexError, RecursionError, MemoryError
    except Exception as error:
        raise ValueError(f"an array's header cannot be parsed: {error}") from error
    return shape, fortran, dtype
