"""Thumbnails: decoded images as small JPEG files inside a page.

Bytes of an image file never reach a page; its pixels are encoded anew, so that a page holds no
metadata and no file of a stranger.
"""

import base64
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from featcache.imaging.decode import Pixels

SIDE = 384
"""Longest side in pixels."""
QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small JPEG of an image."""

    jpeg: bytes
    width: int
    """Width of the original image in pixels."""
    height: int

    @property
    def uri(self) -> str:
        """The file as a data: URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def thumbnail(pixels: Pixels, side: int = SIDE) -> Thumbnail:
    """Shrink an image; a smaller one keeps its size.

    Args:
        pixels: Upright image.
        side: Longest side of the thumbnail in pixels.

    Example:
        >>> import numpy as np
        >>> small = thumbnail(np.zeros((600, 800, 3), dtype=np.uint8), side=100)
        >>> small.width, small.uri[:23]
        (800, 'data:image/jpeg;base64,')
    """
    height, width, _ = pixels.shape
    image = Image.fromarray(pixels)
    shrink = max(1.0, max(width, height) / side)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(jpeg=buffer.getvalue(), width=width, height=height)
