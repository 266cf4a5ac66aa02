"""Compute the cost of decoding an image before decoding it, and share memory between decoders.

The cost is the number of scans of a JPEG file, each of which passes over the whole image, and the
peak memory of the decoder. It does not depend on time or free memory, so that the same images are
readable on every machine. docs/reliability.md has the measurements.
"""

import ctypes
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from PIL import Image, _imaging

SCANS = 6
"""Most scans of an image at the limit of pixels: about 2^30 pixels, ten scans of 100 megapixels."""
BYTES = 12
"""Peak memory in bytes per pixel of all decoders except WebP: 2 GiB at the default limit."""
WEBP_BYTES = 20
"""Peak memory in bytes per pixel of WebP, whose decoder has two canvases and a copy."""
SMALL = 1 << 26
"""Bytes that an image may use without a claim."""
SCAN_PIXELS = 1024
"""Smallest cost of a scan in pixels."""

MARKERS = 10_000
"""Markers of a JPEG file that cost nothing; each further one counts as a scan."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A JPEG marker with a length: not a restart marker, and not an escaped data byte 0xff."""
_SCAN, _END = 0xDA, 0xD9
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_COMPRESSION, _IN_JPEG = 259, (6, 7)
_PLACES = ((273, 279), (324, 325), (513, 514))
"""TIFF tags of offsets and byte counts: of strips, tiles, and an old-style JPEG."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of decoding one image."""

    scanned: int
    """Pixels times scans."""
    scans: int
    """Number of scans; counting stops above the limit."""
    bytes: int
    """Peak memory."""


def cost_of(image: Image.Image, data: bytes, max_pixels: int) -> Cost:
    """Compute the cost of decoding.

    Args:
        image: Image opened by Pillow and not loaded.
        data: Bytes of its file.
        max_pixels: Limit of pixels; scans above the limit are not counted.
    """
    pixels = image.width * image.height
    scanned = max(pixels, SCAN_PIXELS)
    scans, most = 1, SCANS * max_pixels // scanned
    if data[:2] == b"\xff\xd8":
        scans = count_scans(data, most)
    elif image.format == "TIFF":
        scans = _scans_of_parts(image, data, most)
    each = WEBP_BYTES if image.format == "WEBP" else BYTES
    return Cost(scans * scanned, scans, each * (pixels + _tile(image)))


def count_scans(data: bytes, most: int, start: int = 0, stop: int | None = None) -> int:
    """Count the scans of a JPEG file; scans of a thumbnail inside a segment do not count.

    Args:
        data: Bytes with the file.
        most: Counting stops above this number.
        start: Offset of the file.
        stop: End of the file, exclusive; None for the end of the data.
    """
    scans, markers, at, stop = 0, 0, start, len(data) if stop is None else stop
    while scans <= most and (match := _MARKER.search(data, at, stop)):
        marker, at = data[match.end() - 1], match.end()
        if marker == _END:
            break
        markers += 1
        scans += marker == _SCAN or markers > MARKERS
        at += int.from_bytes(data[at : at + 2], "big")
    return max(1, scans)


def _scans_of_parts(image: Image.Image, data: bytes, most: int) -> int:
    """Return the largest number of scans of a JPEG strip or tile of a TIFF file."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) not in _IN_JPEG:
        return 1
    scans, left = 1, len(data)
    for start, size in sorted(set(_parts(tags))):
        stop = min(start + size, len(data))
        left -= max(0, stop - start)
        scans = max(scans, count_scans(data, most, start, stop))
        if left < 0 or scans > most:
            return most + 1
    return scans


def _parts(tags: Mapping[int, object]) -> Iterator[tuple[int, int]]:
    for names in _PLACES:
        starts, sizes = (_numbers(tags.get(name)) for name in names)
        yield from zip(starts, sizes, strict=False)


def _numbers(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(v if isinstance(v, int) and v >= 0 else 0 for v in values)


def _tile(image: Image.Image) -> int:
    """Return the pixels of a tile of a TIFF file; a tile may be larger than the image."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    sides = [tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
    whole = [side for side in sides if isinstance(side, int) and side > 0]
    return whole[0] * whole[1] if len(whole) == len(sides) else 0


class Memory:
    """Memory shared by images that are decoded concurrently."""

    def __init__(self, total: int) -> None:
        """Set the total in bytes."""
        self._total, self._used = total, 0
        self._freed = threading.Condition()

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that claims bytes until the block ends; small claims never wait."""
        claimed = 0

        def claim(count: int) -> None:
            nonlocal claimed
            if claimed or count <= SMALL:
                return
            count = min(count, self._total)
            with self._freed:
                self._freed.wait_for(lambda: self._used + count <= self._total)
                self._used += count
            claimed = count

        try:
            yield claim
        finally:
            with self._freed:
                self._used -= claimed
                self._freed.notify_all()


@cache
def hush_libtiff() -> None:
    """Silence libtiff's messages on damaged files; Pillow raises an error if needed.

    libtiff prints to the terminal directly, so its handlers are reset in the library itself, once
    for all threads.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (OSError, AttributeError):  # Pillow has no libtiff, or a static one
        return
