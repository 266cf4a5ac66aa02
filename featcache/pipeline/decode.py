"""Bytes of a file -> an upright RGB picture of 8 bits a channel, or a sentence why not.

What comes out is `PIL.Image.convert("RGB")`, as open_clip's own preprocessing does it, with three
differences: the EXIF orientation is honoured, 16-bit grey is scaled to 8 bits instead of clipped,
and palettes are resolved before anything is resized. Transparency is dropped, not composited.
"""

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from featcache.errors import SourceError, UsageError
from featcache.paths import open_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""The only parsers that a file of the user's is given to."""

MAX_PIXELS = 178_956_970
"""Largest picture decoded unless the user raises it: where Pillow, too, stops by default."""

MAX_PIXELS_VARIABLE = "FEATCACHE_MAX_PIXELS"

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

J = TypeVar("J")
R = TypeVar("R")


class UnreadableImageError(SourceError):
    """One image that cannot be used; its message is the reason, without the file's name."""


def pixel_limit(value: int | None = None) -> int:
    """Settle the largest number of pixels to decode: argument, environment, default.

    Raises:
        UsageError: If the environment variable is no positive integer.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if value is None and text:
        if not (text.isascii() and text.isdecimal() and len(text) < 19) or int(text) == 0:
            raise UsageError(
                f"{MAX_PIXELS_VARIABLE} must be a positive number of pixels, got '{text[:80]}'."
            )
        value = int(text)
    limit = MAX_PIXELS if value is None else value
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow's own limit is one number for the process; ours below is the one that counts.
        Image.MAX_IMAGE_PIXELS = limit
    return limit


def read_image(path: Path, sha256: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a file once, make sure that its bytes are the listed ones, and decode it.

    Raises:
        UnreadableImageError: If the file is gone, has changed, or is no picture.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnreadableImageError("changed on disk while the features were extracted")
    return decode(data, max_pixels=max_pixels)


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the bytes of a file to upright 8-bit RGB; of an animation, the first frame.

    Raises:
        UnreadableImageError: If the bytes are no complete picture of a format that we read.
    """
    if not data:
        raise UnreadableImageError("is empty")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImageError(_too_large(image.width, image.height, max_pixels))
            image.load()
            return _upright(_eight_bit(image), _orientation(image))
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"is no picture of a known format ({', '.join(FORMATS)})"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"has more pixels than the limit of {max_pixels:,}; raise it with --max-pixels or "
            f"{MAX_PIXELS_VARIABLE}"
        ) from error
    # Pillow's parsers let through what they trip over: struct.error, IndexError, zlib.error ...
    except Exception as error:
        raise UnreadableImageError(f"cannot be decoded: {_first_line(error)}") from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Hush Pillow's remarks on damaged metadata; what it cannot read it raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def in_order(
    jobs: Iterable[J], work: Callable[[J], R], *, threads: int, ahead: int
) -> Generator[R, None, None]:
    """Run `work` on threads and yield its results in the order of the jobs.

    Args:
        jobs: Walked on the calling thread.
        work: Called on the others.
        threads: How many.
        ahead: Jobs begun before their turn; bounds the memory in use.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[Future[R]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert to RGB from whatever mode the file has."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # I;16, I;16B and, from some files, I: 16 bits of grey
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise UnreadableImageError("has 32-bit pixels, whose white is not defined")
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImageError("has floating-point pixels, whose white is not defined")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")  # Pillow warns on the direct way
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; a broken EXIF block counts as upright."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    # The parser raises SyntaxError, struct.error, KeyError ... on damage; the picture is fine.
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    # Its pixels are in memory: closing the file does not take them away.
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _too_large(width: int, height: int, max_pixels: int) -> str:
    return (
        f"has {width} x {height} pixels, above the limit of {max_pixels:,}; raise it with "
        f"--max-pixels or {MAX_PIXELS_VARIABLE}"
    )


def _first_line(error: BaseException) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if len(text) <= 160 else text[:157] + "..."
