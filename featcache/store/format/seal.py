"""Sealed JSON: an object on one line whose last entry is a checksum of everything before it.

    crc(line) = crc32(hex crc of the line before + bytes of this line without its crc)        (1)

The first line uses `00000000` for the line before. The JSON is canonical (sorted keys, no spaces,
ASCII), so that every changed byte is detected.
"""

import json
import re
import zlib
from collections.abc import Mapping

from featcache.store.format.files import canonical

SEAL = rb',"crc":"[0-9a-f]{8}"\}'
"""Pattern of the end of a sealed line."""
SEAL_LENGTH = 18
"""Bytes of the seal."""


def seal(value: Mapping[str, object], previous: int = 0) -> tuple[bytes, int]:
    """Return the sealed line of an object, with its line feed, and its checksum.

    Args:
        value: Plain JSON values, at least one entry.
        previous: Checksum of the line before; 0 for the first line.
    """
    body = canonical(dict(value))
    crc = checksum(body, previous)
    return body[:-1] + b',"crc":"%08x"}\n' % crc, crc


def unseal(line: bytes, previous: int = 0) -> tuple[dict[str, object], int]:
    """Check a line, without its line feed, and return its object and its checksum.

    Raises:
        ValueError: If it is damaged; the message is a predicate ("does not end with its checksum").
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
    """Return the bytes that a seal covers and the stated checksum, without checking it.

    Raises:
        ValueError: If the line does not end with a seal.
    """
    if re.fullmatch(SEAL, line[-SEAL_LENGTH:]) is None:
        raise ValueError("does not end with its checksum")
    return cut_seal(line), int(line[-10:-2], 16)


def cut_seal(line: bytes) -> bytes:
    """Return the bytes that a seal covers, whether the seal is valid or not."""
    return line[:-SEAL_LENGTH] + b"}"


def checksum(body: bytes, previous: int) -> int:
    """Return the checksum (1) of a line without its seal."""
    return zlib.crc32(body, zlib.crc32(b"%08x" % previous))
