"""The compact form of Thrift, in which parquet writes footers and page headers: read, written.

Reference: Apache Thrift, "Thrift Compact protocol encoding".
"""

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

Fields = dict[int, tuple[int, Any]]
"""Number of a field -> its type and value; a list is its type and its values."""


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> Fields:
        fields: Fields = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = (head & 15, self._value(head & 15))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == BYTE:
            return self._byte()
        if kind in (I16, I32, I64):
            return self._zigzag()
        if kind in (DOUBLE, BINARY):
            count = 8 if kind == DOUBLE else self._varint()
            self.at += count
            return self.data[self.at - count : self.at]
        if kind == STRUCT:
            return self.struct()
        assert kind == LIST
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        return head & 15, [self._value(head & 15) for _ in range(count)]

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def written(fields: Fields) -> bytes:
    out, before = b"", 0
    for number, (kind, value) in sorted(fields.items()):
        kind = (TRUE if value else FALSE) if kind in (TRUE, FALSE) else kind
        out += bytes([(number - before) << 4 | kind])
        out += b"" if kind in (TRUE, FALSE) else _written(kind, value)
        before = number
    return out + b"\0"


def _written(kind: int, value: Any) -> bytes:
    if kind == BYTE:
        return bytes([value])
    if kind in (TRUE, FALSE):
        return bytes([TRUE if value else FALSE])
    if kind in (I16, I32, I64):
        return _varint(value << 1 ^ value >> 63)
    if kind == BINARY:
        return _varint(len(value)) + bytes(value)
    if kind == DOUBLE:
        return bytes(value)
    if kind == STRUCT:
        return written(value)
    inner, values = value
    head = bytes([len(values) << 4 | inner]) if len(values) < 15 else bytes([0xF0 | inner])
    count = b"" if len(values) < 15 else _varint(len(values))
    return head + count + b"".join(_written(inner, v) for v in values)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
