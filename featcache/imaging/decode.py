"""Bytes of a file -> grey levels of an upright RGB picture, or a sentence why not.

What comes out is `PIL.Image.convert("RGB")`, as open_clip's own preprocessing does it, with three
differences: the EXIF orientation is honoured, 16-bit grey is scaled to 8 bits instead of clipped,
and palettes are resolved before anything is resized. Transparency is dropped, not composited.
"""

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from featcache.errors import BackboneError, SourceError
from featcache.imaging.decode_work import BYTES, SCANS, SMALL, Cost, cost_of, hush_libtiff
from featcache.imaging.jpeg import decode_jpeg
from featcache.limits import IMAGE_FILE, PIXELS
from featcache.paths import open_regular
from featcache.pipeline.threads import single_threaded
from featcache.scarcity import lacking

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""The only parsers that a file of the user's is given to."""

MAX_PIXELS = PIXELS.most
"""Largest picture decoded unless the user raises it."""

BAND_BYTES = 1 << 24
"""Bytes of an image that are converted and copied at once."""

_RAISE = f"raise it with --max-pixels or {PIXELS.variable}"
_ORIENTATION_TAG = 0x0112
_TRANSPOSED = (5, 6, 7, 8)
"""Orientations in which rows are stored as columns."""
_FLIPPED = {
    2: (1, -1),
    3: (-1, -1),
    4: (-1, 1),
    5: (1, 1),
    6: (1, -1),
    7: (-1, -1),
    8: (-1, 1),
}
"""Orientation -> the steps through rows and columns, after that, that make it upright."""

Picture = UInt8[np.ndarray, "h w 3"]
"""Upright, RGB."""
Room = Callable[..., UInt8[np.ndarray, "..."]]
"""Shape -> memory that is not filled."""
Claim = Callable[[int], None]
"""Told of bytes that are needed; returns when they may be taken."""

J = TypeVar("J")
R = TypeVar("R")


class UnreadableImageError(SourceError):
    """One image that cannot be used; its message is the reason, without the file's name."""


def pixel_limit(value: int | None = None) -> int:
    """Settle the largest number of pixels to decode: argument, environment, default.

    Raises:
        UsageError: If the environment variable is no positive integer.
    """
    limit = PIXELS.value() if value is None else value
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow's own limit is one number for the process; ours below is the one that counts.
        Image.MAX_IMAGE_PIXELS = limit
    return limit


def plain_room(*shape: int) -> UInt8[np.ndarray, "..."]:
    """Return memory like any other, not filled."""
    return np.empty(shape, dtype=np.uint8)


def read_image(
    path: Path,
    sha256: str,
    *,
    max_pixels: int = MAX_PIXELS,
    room: Room = plain_room,
    claim: Claim = lambda _: None,
) -> Picture:
    """Read a file once, make sure that its bytes are the listed ones, and decode it.

    Args:
        path: Of the file.
        sha256: That its bytes must have.
        max_pixels: Largest picture to decode.
        room: Where the picture shall lie.
        claim: Told how many bytes decoding takes before it takes them; may wait for them.

    Raises:
        UnreadableImageError: If the file is gone, has changed, or is no picture.
    """
    try:
        with open_regular(path, IMAGE_FILE) as file:
            size = os.fstat(file.fileno()).st_size
            if size > SMALL:  # nobody knows yet what is in it
                claim(size + BYTES * max_pixels)
            data = file.read(size)
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnreadableImageError("changed on disk while the features were extracted")
    return decode(data, max_pixels=max_pixels, room=room, claim=claim)


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    room: Room = plain_room,
    claim: Claim = lambda _: None,
) -> Picture:
    """Decode the bytes of a file to upright 8-bit RGB; of an animation, the first frame.

    Raises:
        UnreadableImageError: If the bytes are no complete picture of a format that we read.
        BackboneError: If `room` finds no memory; the picture is not to blame.
    """
    if not data:
        raise UnreadableImageError("is empty")
    try:
        hush_libtiff()
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImageError(_too_large(image.width, image.height, max_pixels))
            cost = cost_of(image, data, max_pixels)
            if why := _too_costly(cost, max_pixels):
                raise UnreadableImageError(why)
            claim(cost.bytes)
            levels = decode_jpeg(image, data, room)
            if levels is None:
                image.load()
                levels = room(image.height, image.width, 3)
                _copy_out(image, levels)
            orientation = _orientation(image)
    except (UnreadableImageError, BackboneError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"is no picture of a known format ({', '.join(FORMATS)})"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"has more pixels than the limit of {max_pixels:,}; {_RAISE}"
        ) from error
    except MemoryError as error:  # of this process: the file's own size was counted before
        raise BackboneError(lacking(error)) from error
    # Pillow's parsers let through what they trip over: struct.error, IndexError, zlib.error ...
    except Exception as error:
        raise UnreadableImageError(f"cannot be decoded: {_first_line(error)}") from error
    if orientation not in _FLIPPED:
        return levels
    turned = _turned(levels, orientation)
    upright = room(*turned.shape)
    upright[...] = turned
    return upright


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
    waiting: deque[Future[R]] = deque()
    with single_threaded(threads, "decode") as pool:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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


def _copy_out(image: Image.Image, levels: Picture) -> None:
    """Convert and copy by bands: Pillow's way out holds what it copies twice."""
    height, width, _ = levels.shape
    rows = max(1, BAND_BYTES // (3 * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image if rows >= height else image.crop((0, top, width, bottom))
        data = _eight_bit(band).tobytes()
        levels[top:bottom].reshape(-1)[:] = np.frombuffer(data, dtype=np.uint8)


def _turned(levels: Picture, orientation: int) -> UInt8[np.ndarray, "h_upright w_upright 3"]:
    if orientation in _TRANSPOSED:
        levels = levels.swapaxes(0, 1)
    rows, columns = _FLIPPED[orientation]
    return levels[::rows, ::columns]


def _too_large(width: int, height: int, max_pixels: int) -> str:
    return f"has {width} x {height} pixels, above the limit of {max_pixels:,}; {_RAISE}"


def _too_costly(cost: Cost, max_pixels: int) -> str:
    """Say why a picture is not worth its work; empty where it is."""
    if cost.scanned > SCANS * max_pixels:
        return (
            f"goes over its pixels in {cost.scans:,} scans or more, {cost.scanned:,} pixels, above "
            f"the limit of {SCANS * max_pixels:,} ({SCANS} times --max-pixels); {_RAISE}"
        )
    if cost.bytes > BYTES * max_pixels:
        return (
            f"takes {cost.bytes:,} bytes to decode, above the limit of {BYTES * max_pixels:,} "
            f"({BYTES} times --max-pixels); {_RAISE}"
        )
    return ""


def _first_line(error: BaseException) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if len(text) <= 160 else text[:157] + "..."
