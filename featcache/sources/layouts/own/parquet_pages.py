"""Sizes of the pages of a parquet column, read from the pages themselves.

A footer may say anything. What a reader allocates is what stands before each page: its bytes when
unpacked. All pages of a column are therefore looked at before the column is decoded.

Reference: Apache Parquet, `parquet.thrift`, PageHeader; Apache Thrift, "Thrift Compact protocol
encoding".
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LONGEST_HEADER = 1 << 20
"""Bytes that stand before one page; its statistics may hold long values."""
USUAL_HEADER = 4096
"""Bytes that are read at first."""
DEEPEST = 16
"""Structures in one another; a header has three."""

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_UNPACKED, _PACKED, _DATA, _DATA_2 = 2, 3, 5, 8
"""Fields of a header: sizes of the page, and what a page of values is, in two versions."""
_VALUES = 1
"""Field of these: how many values."""


class DamagedPageError(ValueError):
    """A header that no writer of parquet writes."""


@dataclass(frozen=True, slots=True)
class Page:
    """Bytes of one page."""

    packed: int
    unpacked: int
    values: int
    """Values in it, nulls among them; 0 for the words of a dictionary."""


def pages(handle: int, start: int, count: int) -> Iterator[Page]:
    """Yield the pages of a column in a row group.

    Args:
        handle: Descriptor of the file.
        start: Byte at which the first page begins.
        count: Bytes of all pages with their headers.

    Raises:
        DamagedPageError: If a header is damaged, or a page reaches beyond the column.
        OSError: If the system refuses to read.
    """
    at, end = start, start + count
    while at < end:
        page, length = _header(handle, at, end)
        at += length + page.packed
        if at > end:
            raise DamagedPageError("a page is longer than its column")
        yield page


def _header(handle: int, at: int, end: int) -> tuple[Page, int]:
    """Return a page and the bytes of its header."""
    size = min(USUAL_HEADER, end - at)
    while True:
        fields = _Fields(os.pread(handle, size, at))
        try:
            found = fields.numbers()
        except IndexError as error:
            if size >= min(LONGEST_HEADER, end - at):
                raise DamagedPageError("a page has no whole header") from error
            size = min(8 * size, LONGEST_HEADER, end - at)
            continue
        about = found.get(_DATA) or found.get(_DATA_2) or {_VALUES: 0}
        match found.get(_PACKED), found.get(_UNPACKED), about:
            case int(packed), int(unpacked), {1: int(values)} if min(packed, unpacked, values) >= 0:
                return Page(packed, unpacked, values), fields.at
        raise DamagedPageError("a page has a negative size, or none")


class _Fields:
    """A structure in Thrift's compact form; raises IndexError where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def numbers(self, depth: int = 0) -> dict[int, Any]:
        """Return numbers, and structures of such, by their fields; pass over everything else."""
        if depth > DEEPEST:
            raise DamagedPageError("a header is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            if kind in (_I16, _I32, _I64):
                found[number] = self._number()
            elif kind == _STRUCT:
                found[number] = self.numbers(depth + 1)
            else:
                self._skip(kind)
        return found

    def _skip(self, kind: int) -> None:
        if kind in (_BYTE, _DOUBLE, _BINARY):
            count = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self._varint()
            self.at += count
            if self.at > len(self.data):
                raise IndexError
        elif kind not in (_TRUE, _FALSE):  # no header of a page has a list, a set or a map
            raise DamagedPageError(f"a header has a field of kind {kind}")

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise DamagedPageError("a header has a number of more than 64 bits")

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]
