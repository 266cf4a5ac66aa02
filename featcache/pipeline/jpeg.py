"""Sound JPEG files in colour by libjpeg-turbo itself: Pillow's pixels without Pillow's copies.

Everything else about a file is Pillow's to say: whether it is one, its size, its orientation, and
what is wrong with it where this decoder gives up, which it does at the first irregularity.
"""

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

_END = b"\xff\xd9"
_PADDING = b"\x00\r\n\x1a "
"""What some cameras and downloads leave behind the end."""


def decode_jpeg(image: Image.Image, data: bytes, levels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Decode a file whose header Pillow has read; tell whether that is done, or left to Pillow.

    Args:
        image: Opened, not loaded.
        data: The bytes of its file.
        levels: Takes the pixels; whatever it holds if they could not be decoded.
    """
    # libjpeg remarks on a torn file, past Python, on the terminal; Pillow keeps that to itself.
    is_whole = data.endswith(_END) or data[-64:].rstrip(_PADDING).endswith(_END)
    if image.format != "JPEG" or image.mode != "RGB" or not is_whole:
        return False
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=levels, strict=True)
    except ValueError:
        return False
    return bool(found.shape == levels.shape)
