"""The header of a safetensors file: a table of tensors and a sealed description; without torch."""

import json
import os
from pathlib import Path
from typing import Any

from featcache.limits import METADATA
from featcache.paths import open_descriptor
from featcache.store.format.seal import unseal

PREFIX = 8
"""Bytes of the length of the header, little-endian."""


def parse_header(header: bytes) -> dict[str, Any]:
    """Return the table of a header, with the metadata under `__metadata__`.

    Raises:
        ValueError: If it is none.
    """
    header = header.rstrip(b" ")
    if not header.startswith(b"{") or not header.endswith(b"}"):
        raise ValueError("has no header")
    try:
        table = json.loads(header)
    except RecursionError as error:
        raise ValueError("has a header that is nested too deep") from error
    if not isinstance(table, dict):
        raise ValueError("has no table")
    return table


def description_in(table: dict[str, Any], name: str) -> dict[str, Any]:
    """Take the description out of a table and check its seal.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    try:
        return unseal(table.pop("__metadata__")[name].encode())[0]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("has no description") from error


def peek(path: Path, name: str) -> dict[str, Any]:
    """Read the description of a file and check its seal; the tensors are not read.

    Args:
        path: A regular file; links are not followed.
        name: Name of the description in the header.

    Raises:
        ValueError: If there is none, or it is damaged.
        OSError: If the file cannot be read.
    """
    with os.fdopen(open_descriptor(path, links=False), "rb") as file:
        length = int.from_bytes(file.read(PREFIX), "little")
        if length > min(METADATA.value(), os.fstat(file.fileno()).st_size):
            raise ValueError("has no header")
        header = file.read(length)
    if len(header) < length:
        raise ValueError("has no header")
    return description_in(parse_header(header), name)
