"""Arrays inside an .npz file, read a part at a time; what could run code is refused."""

import io
import math
import struct
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from jaxtyping import UInt8

from featcache.errors import SourceError
from featcache.paths import open_regular
from featcache.scarcity import lacking
from featcache.sources.layouts.own.container import Container

BLOCK = 8 << 20
"""Bytes that are unpacked at once; a compressed array can only be read from its beginning on."""

_KEPT = 4
"""Blocks of each array that stay unpacked, for threads that are not at the same image."""


_BROKEN = (
    *(OSError, EOFError, RuntimeError, ValueError, KeyError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What zipfile raises for damaged, encrypted or unsupported files."""

_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How numpy packs arrays; bzip2 and lzma unpack gigabytes at once."""


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an .npz file, of which the header is read."""

    container: Container
    name: str
    """Without `.npy`."""
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    start: int
    """Bytes of the header."""

    @property
    def path(self) -> Path:
        """The .npz file."""
        return self.container.path

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def read_members(path: Path) -> dict[str, Member]:
    """Read the headers of the arrays of an .npz file.

    Raises:
        SourceError: If it is no such file, or holds objects, which only running code can read.
    """
    container = Container(path)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = [n for n in archive.namelist() if n.endswith(".npy")]
            if len(set(names)) != len(names):
                raise SourceError(f"{path} holds two arrays of one name; get a whole copy of it.")
            return {n.removesuffix(".npy"): _member(container, archive, n) for n in names}
    except _BROKEN as error:
        raise SourceError(
            f"{path} could not be read as .npz ({lacking(error) or error}); get a whole copy of it."
        ) from error


class RowReader:
    """Reads entries of the first axis of one array, best in their order; from any thread."""

    def __init__(self, member: Member) -> None:
        """Open nothing yet.

        Args:
            member: The array, not in Fortran's order.
        """
        self._member = member
        self._rows = max(1, BLOCK // max(1, member.row_bytes))
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()
        self._file: io.BufferedReader | None = None
        self._stream: IO[bytes] | None = None

    def __del__(self) -> None:
        """Close the file; images keep their reader for as long as they may be read."""
        self._close()

    def row(self, index: int) -> bytes:
        """Return the bytes of one entry.

        Raises:
            OSError: If the file is gone, damaged or shorter than its header says.
            SourceError: If the file has changed since its labels were read.
        """
        number, within = divmod(index, self._rows)
        size = self._member.row_bytes
        with self._lock:
            block = self._block(number)
        row = block[within * size : (within + 1) * size]
        if len(row) != size:
            raise OSError(f"{self._member.path} ends before entry {index} of {self._member.name}")
        return row

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        try:
            block = self._read(number)
        except _BROKEN as error:
            self._close()
            self._member.container.check_same()
            why = lacking(error) or error
            raise OSError(f"{self._member.path} could not be read ({why})") from error
        self._member.container.check_same()
        self._blocks[number] = block
        while len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return block

    def _read(self, number: int) -> bytes:
        if self._stream is None:
            self._file = open_regular(self._member.path)
            archive = zipfile.ZipFile(self._file)
            self._stream = archive.open(f"{self._member.name}.npy")
        self._stream.seek(self._member.start + number * self._rows * self._member.row_bytes)
        return self._stream.read(self._rows * self._member.row_bytes)

    def _close(self) -> None:
        self._stream = None
        if self._file is not None:
            self._file.close()
            self._file = None


def _member(container: Container, archive: zipfile.ZipFile, name: str) -> Member:
    path = container.path
    if archive.getinfo(name).compress_type not in _PLAIN:
        raise SourceError(
            f"Array '{name}' of {path} is not packed as numpy packs it; write the file again with "
            f"numpy.savez_compressed."
        )
    with archive.open(name) as stream:
        start = io.BytesIO(stream.read(1 << 16))
    try:
        version = np.lib.format.read_magic(start)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(start)
    # numpy parses it as Python: SyntaxError, TokenError, IndexError, RecursionError, MemoryError
    except Exception as error:
        raise SourceError(
            f"Array '{name}' of {path} has no header that can be read; get a whole copy."
        ) from error
    if min(shape, default=0) < 0:
        raise SourceError(
            f"Array '{name}' of {path} has the shape {list(shape)}; expected none below 0. Get "
            f"a whole copy."
        )
    if dtype.hasobject:
        raise SourceError(
            f"Array '{name}' of {path} holds Python objects, which only running code could read; "
            f"expected numbers."
        )
    if fortran and len(shape) > 1 and min(shape[:2], default=0) > 1:
        raise SourceError(
            f"Array '{name}' of {path} is in Fortran's order; save numpy.ascontiguousarray of it."
        )
    return Member(container, name.removesuffix(".npy"), shape, dtype, start.tell())


def read_whole(member: Member, limit: int) -> UInt8[np.ndarray, " bytes"]:
    """Read a small array whole.

    Args:
        member: The array.
        limit: Bytes it may have.

    Returns:
        Its bytes; `.view(member.dtype).reshape(member.shape)` is the array.

    Raises:
        SourceError: If it is larger than the limit, or damaged.
    """
    size = math.prod(member.shape) * member.dtype.itemsize
    if size > limit:
        raise SourceError(
            f"Array '{member.name}' of {member.path} has {size} bytes; expected {limit} at most."
        )
    try:
        with (
            open_regular(member.path) as file,
            zipfile.ZipFile(file) as archive,
            archive.open(f"{member.name}.npy") as stream,
        ):
            stream.read(member.start)
            data = stream.read(size)
    except _BROKEN as error:
        raise SourceError(
            f"{member.path} could not be read ({lacking(error) or error}); get a whole copy of it."
        ) from error
    if len(data) != size:
        raise SourceError(f"{member.path} ends within '{member.name}'; get a whole copy of it.")
    return np.frombuffer(data, np.uint8)
