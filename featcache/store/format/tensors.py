"""Tensors with a sealed description: safetensors, with the description in its header.

    8 bytes       length of the header, little-endian
    header        JSON: "__metadata__": {NAME: description}, and the table of tensors
    data          the tensors, one after the other

    description   sealed JSON with "table" and "data", the crc32 of the table and of the data

So every changed byte is detected. Nothing in such a file can be executed.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from featcache.store.format.files import canonical
from featcache.store.format.seal import seal
from featcache.store.format.tensor_header import PREFIX, description_in, parse_header


def compose(tensors: Mapping[str, Tensor], name: str, description: Mapping[str, object]) -> bytes:
    """Return the bytes of a file; equal tensors and descriptions give equal bytes.

    Args:
        tensors: Name -> tensor, on any device.
        name: Name of the description in the header.
        description: Plain JSON values.
    """
    plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    table, data = _parts(safetensors.torch.save(plain))
    sums = {"table": zlib.crc32(canonical(table)), "data": zlib.crc32(data)}
    sealed = seal({**description, **sums})[0].decode().rstrip("\n")
    return safetensors.torch.save(plain, metadata={name: sealed})


def describe(data: bytes, name: str) -> tuple[dict[str, Any], bool]:
    """Return the description of a file, and whether table and data are those it states.

    Args:
        data: Content of the file.
        name: Name of the description in the header.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    table, tensors = _parts(data)
    description = description_in(table, name)
    try:
        stated = (description["table"], description["data"])
        return description, stated == (zlib.crc32(canonical(table)), zlib.crc32(tensors))
    except KeyError as error:
        raise ValueError("has no checksums") from error


def load(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file whose description was checked.

    Raises:
        ValueError: If it is no safetensors file.
    """
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError("is no safetensors file") from error


def _parts(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Split a file into its parsed header and its data.

    Raises:
        ValueError: If it has no such header.
    """
    start = PREFIX + int.from_bytes(data[:PREFIX], "little")
    if start > len(data):
        raise ValueError("has no header")
    return parse_header(data[PREFIX:start]), memoryview(data)[start:]
