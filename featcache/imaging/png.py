"""Pixels as PNG bytes that are the same on every machine.

Compressors differ between versions and platforms, and an image is known by the hash of its bytes;
so nothing is compressed: stored blocks, filter 0.
"""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 65_535
"""Bytes of a stored block of deflate at most."""


def png_bytes(pixels: UInt8[np.ndarray, "..."]) -> bytes:
    """Write an image as PNG, without loss and without compression.

    Args:
        pixels: Grey [h w] or RGB [h w 3], in 0..255.

    Raises:
        ValueError: If it has another shape, or no pixel.

    Example:
        >>> len(png_bytes(np.zeros((2, 3), np.uint8))) == png_size(2, 3, 1)
        True
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
        raise ValueError(f"expected an image [h w] or [h w 3], got {list(pixels.shape)}")
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # filter 0 before each row
    rows[:, 1:] = pixels.reshape(height, -1)
    kind = 2 if channels == 3 else 0
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    body = _stored(rows.tobytes())
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def png_size(height: int, width: int, channels: int) -> int:
    """Return how many bytes `png_bytes` writes."""
    raw = height * (1 + width * channels)
    blocks = -(-raw // _BLOCK)
    return len(_SIGNATURE) + 3 * 12 + 13 + 2 + raw + 5 * blocks + 4


def _stored(data: bytes) -> bytes:
    """Wrap bytes as a zlib stream of stored blocks."""
    parts = [b"\x78\x01"]
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        parts.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF))
        parts.append(block)
    parts.append(struct.pack(">I", zlib.adler32(data)))
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
