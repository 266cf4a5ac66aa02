"""Sealed JSON: an object on one line whose last entry is a checksum of all that stands before it.

    crc(line) = crc32(hex crc of the line before + bytes of this line without its crc)        (1)

A file of one line takes `00000000` for the line before. Since the JSON is canonical (sorted keys,
no spaces, ASCII), every changed byte shows.
"""

import json
import re
import zlib
from collections.abc import Mapping

from featcache.store.format.files import canonical

SEAL = rb',"crc":"[0-9a-f]{8}"\}'
"""Pattern of what closes a sealed line."""
SEAL_LENGTH = 18
"""Its bytes."""


def seal(value: Mapping[str, object], previous: int = 0) -> tuple[bytes, int]:
    """Return the line of an object, line feed included, and its checksum.

    Args:
        value: Plain JSON values, at least one entry.
        previous: Checksum of the line before; 0 where there is none.
    """
    body = canonical(dict(value))
    crc = checksum(body, previous)
    return body[:-1] + b',"crc":"%08x"}\n' % crc, crc


def unseal(line: bytes, previous: int = 0) -> tuple[dict[str, object], int]:
    """Check a line, without its line feed, and return its object and its checksum.

    Raises:
        ValueError: With a predicate ("does not end with its checksum") that says what is wrong.
    """
    body, crc = split_seal(line)
    if checksum(body, previous) != crc:
        raise ValueError("is not what was written, or lines before it are missing or swapped")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value, crc


def split_seal(line: bytes) -> tuple[bytes, int]:
    """Return the bytes that a seal covers and the checksum it states, unchecked.

    Raises:
        ValueError: If the line does not end with a seal.
    """
    if re.fullmatch(SEAL, line[-SEAL_LENGTH:]) is None:
        raise ValueError("does not end with its checksum")
    return cut_seal(line), int(line[-10:-2], 16)


def cut_seal(line: bytes) -> bytes:
    """Return the bytes that a seal covers, whatever stands in its place."""
    return line[:-SEAL_LENGTH] + b"}"


def checksum(body: bytes, previous: int) -> int:
    """Return crc (1) of a line's bytes without its seal."""
    return zlib.crc32(body, zlib.crc32(b"%08x" % previous))
