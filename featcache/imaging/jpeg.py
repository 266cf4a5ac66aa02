"""Decode sound colour JPEG files by libjpeg-turbo directly: Pillow's pixels without its copies.

Pillow does everything else: it identifies the file, reads size and orientation, and decodes or
reports files that this decoder refuses, which it does at the first irregularity.
"""

from collections.abc import Callable

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

_END = b"\xff\xd9"
_PADDING = b"\x00\r\n\x1a "
"""Bytes that some cameras and downloads append."""


def decode_jpeg(
    image: Image.Image, data: bytes, room: Callable[..., UInt8[np.ndarray, "..."]]
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a file whose header Pillow has read; None if Pillow should decode it.

    Args:
        image: Image opened by Pillow and not loaded.
        data: Bytes of its file.
        room: Allocates memory of a shape.
    """
    # libjpeg prints warnings on truncated files to the terminal; Pillow does not.
    is_whole = data.endswith(_END) or data[-64:].rstrip(_PADDING).endswith(_END)
    if image.format != "JPEG" or image.mode != "RGB" or not is_whole:
        return None
    levels = room(image.height, image.width, 3)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=levels, strict=True)
    except ValueError:
        return None
    return levels if pixels.shape == levels.shape else None
