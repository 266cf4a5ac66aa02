"""Convert the images that callers pass to sources for the loader."""

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from featcache.errors import UsageError
from featcache.imaging.decode import UnreadableImageError, check_size, pixels_of
from featcache.imaging.loader import BytesSource, FileSource, ImageSource, PixelSource
from featcache.paths import as_text, expand
from featcache.places import FilePlace

ImageLike: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray | ImageSource
)
"""A path, the bytes of a file, a Pillow image, or upright RGB as uint8 [h w 3]."""


def is_one(images: object) -> bool:
    """Tell whether an object is one image and not an iterable of images."""
    if isinstance(images, np.ndarray):
        return images.ndim == 3
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, ImageSource)
    return isinstance(images, kinds)


def source_of(image: object, number: int, name: str | None, max_pixels: int) -> ImageSource:
    """Convert one image to a source; pixels are copied, so the caller may reuse an array.

    Raises:
        UsageError: If it is not an image.
    """
    fallback = f"images[{number}]"
    match image:
        case str() | os.PathLike():
            path = expand(Path(image))
            return FileSource(name or as_text(path), FilePlace(path))
        case bytes() | bytearray() | memoryview():
            return BytesSource(name or fallback, bytes(image))
        case Image.Image():
            try:
                pixels = pixels_of(image, max_pixels=max_pixels)
            except UnreadableImageError as error:
                return PixelSource(name or fallback, None, error.reason)
            return PixelSource(name or fallback, pixels)
        case np.ndarray() if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            height, width, _ = image.shape
            try:
                check_size(width, height, max_pixels)
            except UnreadableImageError as error:
                return PixelSource(name or fallback, None, error.reason)
            return PixelSource(name or fallback, np.array(image, order="C"))
        case np.ndarray():
            got = f"{image.dtype} {list(image.shape)}"
        case ImageSource():
            return image
        case _:
            got = type(image).__name__
    raise UsageError(
        f"{fallback} should be a path, the bytes of a file, a Pillow image or uint8 [h w 3], "
        f"got {got}."
    )
