"""Lazy columns: sequences of texts, one per row of a listing, read from disk on access.

ids      UTF-8, concatenated, and n + 1 offsets; lone surrogates of file names are allowed
hashes   32 bytes each; not stored if the hash of row i is `import:<i>`
"""

import io
import operator
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Int64

from featcache.errors import CacheError, CorruptCacheError
from featcache.store.listing.files import MappedFile
from featcache.store.listing.pointer import CURE

BLOCK = 1 << 14
"""Rows decoded at once."""
DIGEST = 32
"""Bytes of a sha256."""
HEADER_LIMIT = 4096
"""Most bytes of an .npy header; numpy writes 128."""


class Column(Sequence[str]):
    """Texts on disk that behave like a tuple and are read on access."""

    def __init__(self, n: int) -> None:
        """Set the number of rows."""
        self._n = n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            first, last, step = index.indices(self._n)
            if step == 1:
                return tuple(self._read(first, max(first, last)))
            return tuple(self._read(row, row + 1)[0] for row in range(first, last, step))
        row = operator.index(index)
        row += self._n if row < 0 else 0
        if not 0 <= row < self._n:
            raise IndexError(f"row {index} is outside 0..{self._n - 1}")
        return self._read(row, row + 1)[0]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, self._n, BLOCK):
            yield from self._read(first, min(first + BLOCK, self._n))

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and self._find(value) >= 0

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(other) == self._n and all(map(operator.eq, self, other))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._n} rows)"

    def index(self, value: object, start: int = 0, stop: int | None = None) -> int:
        """Return the first row with a text.

        Raises:
            ValueError: If there is none.
        """
        first, last, _ = slice(start, stop).indices(self._n)
        row = self._find(value) if isinstance(value, str) else -1
        if 0 <= row < first and value in (later := self[first:last]):  # a later one is in the range
            return first + later.index(value)
        if not first <= row < last:
            raise ValueError(f"{value!r} is not among rows {first}..{last - 1}")
        return row

    @abstractmethod
    def _read(self, first: int, last: int) -> list[str]:
        """Return the texts of rows [first, last), within bounds."""

    @abstractmethod
    def _find(self, value: str) -> int:
        """Return the first row of a text, or -1."""


class Ids(Column):
    """Ids of images."""

    def __init__(self, n: int, text: MappedFile, offsets: MappedFile) -> None:
        """Store the files; they are verified on first access."""
        super().__init__(n)
        self._text, self._offsets = text, offsets
        self._starts: Int64[np.ndarray, " m"] | None = None

    def _read(self, first: int, last: int) -> list[str]:
        edges = self._edges()[first : last + 1].tolist()
        block, base = self._text.data()[edges[0] : edges[-1]], edges[0]
        try:
            return [
                block[a - base : b - base].decode("utf-8", "surrogatepass")
                for a, b in pairwise(edges)
            ]
        except UnicodeDecodeError as error:
            raise CorruptCacheError(f"{self._text.path} is no UTF-8 text. {CURE}") from error

    def _find(self, value: str) -> int:
        edges, data = self._edges(), self._text.data()
        try:
            wanted = value.encode("utf-8", "surrogatepass")
        except UnicodeEncodeError:
            return -1
        if not wanted:
            empty = np.flatnonzero(edges[1:] == edges[:-1])
            return int(empty[0]) if len(empty) else -1
        at = data.find(wanted)
        while at >= 0:
            row = int(np.searchsorted(edges, at, side="right")) - 1
            if edges[row] == at and edges[row + 1] == at + len(wanted):
                return row
            at = data.find(wanted, at + 1)
        return -1

    def _edges(self) -> Int64[np.ndarray, " m"]:
        if self._starts is None:
            edges = read_array(self._offsets, self._n + 1)
            inside = edges[0] == 0 and edges[-1] == self._text.bytes
            if not inside or not bool((edges[1:] >= edges[:-1]).all()):
                raise CorruptCacheError(
                    f"{self._offsets.path} does not divide {self._text.path.name}. {CURE}"
                )
            self._starts = edges
        return self._starts


class Hashes(Column):
    """Content hashes of images: 64 hex digits each."""

    def __init__(self, n: int, digests: MappedFile) -> None:
        """Store the file; it is verified on first access.

        Raises:
            CorruptCacheError: If its size does not fit the number of rows.
        """
        super().__init__(n)
        self._digests = digests
        if digests.bytes != DIGEST * n:
            raise CorruptCacheError(f"{digests.path} does not hold {n} hashes. {CURE}")

    def hex(self, first: int, last: int) -> str:
        """Return the concatenated hashes of rows [first, last), within bounds."""
        return self._digests.data()[DIGEST * first : DIGEST * last].hex()

    def _read(self, first: int, last: int) -> list[str]:
        text = self.hex(first, last)
        return [text[i : i + 2 * DIGEST] for i in range(0, len(text), 2 * DIGEST)]

    def _find(self, value: str) -> int:
        wanted = _digest(value)
        if wanted is None:
            return -1
        data = self._digests.data()
        at = data.find(wanted)
        while at >= 0 and at % DIGEST:
            at = data.find(wanted, at + 1)
        return at // DIGEST if at >= 0 else -1


class ImportHashes(Column):
    """Placeholders for hashes of imported features: `import:<row>`."""

    def _read(self, first: int, last: int) -> list[str]:
        return [f"import:{row}" for row in range(first, last)]

    def _find(self, value: str) -> int:
        number = value.removeprefix("import:")
        row = int(number) if number.isdecimal() and len(number) < 20 else -1
        return row if row < self._n and value == f"import:{row}" else -1


def pack_ids(ids: Sequence[str]) -> tuple[bytes, bytes]:
    """Return the concatenated ids and the array of their offsets, as stored on disk."""
    parts = [text.encode("utf-8", "surrogatepass") for text in ids]
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return b"".join(parts), to_npy(offsets)


def pack_hashes(hashes: Sequence[str]) -> bytes | None:
    """Return hashes as stored on disk; None if each is `import:<row>`.

    Raises:
        CacheError: If one is neither that nor a sha256 in hex.
    """
    if len(hashes) and hashes[0].startswith("import:"):
        wrong = next((h for row, h in enumerate(hashes) if h != f"import:{row}"), None)
        if wrong is not None:
            raise CacheError(
                f"Hashes of imported features must be import:<row>; got '{wrong[:80]}'."
            )
        return None
    digests = [_digest(value) for value in hashes]
    if None in digests:
        wrong = hashes[digests.index(None)]
        raise CacheError(f"A content hash must be a sha256 in hex; got '{wrong[:80]}'.")
    return b"".join(d for d in digests if d is not None)


def to_npy(values: Int64[np.ndarray, " r"]) -> bytes:
    """Return an array as an .npy file of little-endian int64."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, dtype="<i8"), allow_pickle=False)
    return buffer.getvalue()


def read_array(file: MappedFile, length: int) -> Int64[np.ndarray, " length"]:
    """Map the int64 values of an .npy file; nothing is allocated by what its header states.

    Raises:
        CorruptCacheError: If it is not an array of that length, or is damaged.
    """
    data = file.data()
    stream = io.BytesIO(data[:HEADER_LIMIT])
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("its version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    # numpy reads the header as Python: SyntaxError, TokenError, IndexError, RecursionError ...
    except Exception as error:
        raise CorruptCacheError(f"{file.path} is no .npy file of version 1. {CURE}") from error
    start = stream.tell()
    if shape != (length,) or dtype != np.dtype("<i8") or start + 8 * length != file.bytes:
        raise CorruptCacheError(f"{file.path} is no array of {length} int64 values. {CURE}")
    values = np.frombuffer(data, dtype="<i8", offset=start, count=length)
    return values.astype(np.int64, copy=False)


def _digest(value: str) -> bytes | None:
    """Return the bytes of a sha256 in lower-case hex, or None for anything else."""
    if len(value) != 2 * DIGEST:
        return None
    try:
        digest = bytes.fromhex(value)
    except ValueError:
        return None
    return digest if digest.hex() == value else None
