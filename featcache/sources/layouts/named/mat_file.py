"""Arrays of whole numbers from MATLAB files of version 5, without running code.

A file is a header of 128 bytes and elements. An element is a tag (type, number of bytes) and its
data; one of type 15 holds another, deflated. Only arrays of whole numbers are read: structs, cells,
texts, objects and complex numbers are left out. Nothing is unpacked beyond the limit of lists, and
no array is longer than a listing may be.

Reference: MathWorks, MAT-File Format, chapter 1. Source: documentation.
"""

import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from featcache.errors import SourceError
from featcache.limits import ROWS, WORDS

_HEADER = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
"""Mark at the end of the header -> order of the bytes, as numpy writes it."""
_INT8, _INT32, _UINT32, _MATRIX, _DEFLATED = 1, 5, 6, 14, 15
_NUMBERS = {
    **{_INT8: "i1", 2: "u1", 3: "i2", 4: "u2", _INT32: "i4", _UINT32: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
"""Type of an element -> type of its numbers."""
_NUMERIC = range(6, 16)
"""Classes of arrays that hold numbers: double, single, and integers of either sign."""
_COMPLEX = 0x800
_SIDES = 64
"""Most sides of an array; numpy has as many."""
_LARGEST = 1 << 53
"""Whole numbers up to here are exact in every type."""


class _Element(NamedTuple):
    kind: int
    data: memoryview


class _BrokenError(Exception):
    """A file that cannot be read; the message follows the name of the file."""


def read_whole_numbers(data: bytes, file: str) -> dict[str, Int64[np.ndarray, " _"]]:
    """Read every array of whole numbers as one row, column after column as MATLAB has them.

    Args:
        data: Content of the file.
        file: Its name, for messages.

    Returns:
        Name -> numbers.

    Raises:
        SourceError: If it is no MATLAB file of version 5, is damaged, or unpacks to more than the
            limit.
    """
    try:
        return dict(_arrays(data))
    except _BrokenError as error:
        raise SourceError(f"{file} {error}. Get a whole copy.") from error


def _arrays(data: bytes) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    order = _ORDERS.get(data[_HEADER - 2 : _HEADER], "")
    if not order:
        raise _BrokenError("is no MATLAB file of version 5")
    room = WORDS.value()
    for element in _elements(memoryview(data)[_HEADER:], order):
        kind, content = element
        if kind == _DEFLATED:
            unpacked = _inflated(content, room)
            room -= len(unpacked)
            kind, content = next(_elements(memoryview(unpacked), order), element)
        found = _array(content, order) if kind == _MATRIX else None
        if found is not None:
            yield found


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Yield what stands one after the other; all but deflated elements are filled to 8 bytes."""
    at = 0
    while at < len(data):
        tag = data[at : at + 8]
        if len(tag) < 8:
            raise _BrokenError("ends within an element")
        kind, size = (int(word) for word in np.frombuffer(tag, f"{order}u4"))
        start, filled = at + 8, size if kind == _DEFLATED else -(-size // 8) * 8
        if kind >> 16:  # a small element: type, number of bytes and data in 8 bytes
            start, kind, size, filled = at + 4, kind & 0xFFFF, kind >> 16, 0
            if size > 4:
                raise _BrokenError("has an element that is longer than its place")
        if start + size > len(data):
            raise _BrokenError("ends within an element")
        yield _Element(kind, data[start : start + size])
        at += 8 + filled


def _inflated(data: memoryview, room: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, room + 1)
    except zlib.error as error:
        raise _BrokenError(f"has a damaged element ({error})") from error
    if len(unpacked) > room:
        raise _BrokenError(
            f"unpacks to more than {WORDS.value()} bytes; {WORDS.variable} raises the limit"
        )
    if not stream.eof:
        raise _BrokenError("ends within an element")
    return unpacked


def _array(content: memoryview, order: str) -> tuple[str, Int64[np.ndarray, " _"]] | None:
    """Return name and numbers of an array; None if they are no whole numbers."""
    parts = _elements(content, order)
    flags = next(parts, None)
    if flags is None:
        return None
    if flags.kind != _UINT32 or len(flags.data) < 4:
        raise _BrokenError("has an array without flags")
    first = _numbers(flags, order)[0]
    if int(first) & 0xFF not in _NUMERIC or int(first) & _COMPLEX:
        return None
    shape, name, values = (next(parts, None) for _ in range(3))
    if shape is None or name is None or values is None:
        raise _BrokenError("has an array without a shape, a name or numbers")
    numbers = _numbers(values, order)
    count = _count(shape, order)
    if count != len(numbers):
        raise _BrokenError(f"has an array of {count} numbers that holds {len(numbers)}")
    if count > ROWS.value():
        raise _BrokenError(
            f"has an array of {count} numbers, more than the limit of {ROWS.value()}; "
            f"{ROWS.variable} raises it"
        )
    with np.errstate(invalid="ignore"):
        whole = numbers.astype(np.int64)
    if not (np.abs(numbers.astype(np.float64)) <= _LARGEST).all() or (whole != numbers).any():
        return None
    return bytes(name.data).decode("ascii", "replace"), whole


def _count(shape: _Element, order: str) -> int:
    """Return how many numbers an array of some shape has; a stranger's may be of any length."""
    if shape.kind != _INT32 or not 0 < len(shape.data) <= 4 * _SIDES:
        raise _BrokenError(f"has an array whose shape is not 1 to {_SIDES} sides")
    sides = _numbers(shape, order).tolist()
    if min(sides) < 0:
        raise _BrokenError("has an array with a negative side")
    return math.prod(sides)


def _numbers(element: _Element, order: str) -> np.ndarray:
    kind = _NUMBERS.get(element.kind)
    if kind is None or len(element.data) % np.dtype(kind).itemsize:
        raise _BrokenError("has an array whose numbers are of no known type")
    return np.frombuffer(element.data, order + kind)
