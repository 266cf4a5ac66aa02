"""Sound JPEG files in colour by libjpeg-turbo itself: Pillow's pixels without Pillow's copies.

Everything else about a file is Pillow's to say: whether it is one, its size, its orientation, and
what is wrong with it where this decoder gives up, which it does at the first irregularity.
"""

from collections.abc import Callable

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

_END = b"\xff\xd9"
_PADDING = b"\x00\r\n\x1a "
"""What some cameras and downloads leave behind the end."""


def decode_jpeg(
    image: Image.Image, data: bytes, room: Callable[..., UInt8[np.ndarray, "..."]]
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a file whose header Pillow has read; None leaves it to Pillow.

    Args:
        image: Opened, not loaded.
        data: The bytes of its file.
        room: Shape -> memory for the image.
    """
    # libjpeg remarks on a torn file, past Python, on the terminal; Pillow keeps that to itself.
    is_whole = data.endswith(_END) or data[-64:].rstrip(_PADDING).endswith(_END)
    if image.format != "JPEG" or image.mode != "RGB" or not is_whole:
        return None
    levels = room(image.height, image.width, 3)
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=levels, strict=True)
    except ValueError:
        return None
    return levels if found.shape == levels.shape else None
