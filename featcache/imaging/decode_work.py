"""What decoding an image takes, counted in its file before it is begun, and who may begin.

Counted are the scans of a JPEG file, each of which goes over the whole image, and the bytes that
the decoder of the format holds at once; never seconds or free memory, so that the same images are
readable on every machine. docs/reliability.md has the measurements behind the bytes.
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
"""Scans of the largest image: about 2^30 pixels, of 100 megapixels ten scans."""
BYTES = 12
"""For each pixel of the largest image: 2 GiB; what all decoders hold at most."""
WEBP_BYTES = 20
"""For a pixel of a WebP file, whose decoder holds two canvases and a copy."""
SMALL = 1 << 26
"""Bytes that an image may take without asking whether there is room for it."""
SCAN_PIXELS = 1024
"""That a scan costs, however small the image is."""

MARKERS = 10_000
"""Markers of a JPEG file that are free; each further one counts as a scan: it is work as well."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A JPEG marker with a length: no restart marker, and no byte 0xff of the data, which a zero
follows."""
_SCAN, _END = 0xDA, 0xD9
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_COMPRESSION, _IN_JPEG = 259, (6, 7)
_PLACES = ((273, 279), (324, 325), (513, 514))
"""TIFF tags: where strips, tiles and an old whole JPEG begin, and their byte counts."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What decoding one image takes."""

    scanned: int
    """Pixels, each as often as it is gone over."""
    scans: int
    """Counted until there were too many."""
    bytes: int
    """Held at once."""


def cost_of(image: Image.Image, data: bytes, max_pixels: int) -> Cost:
    """Count what decoding takes.

    Args:
        image: Opened by Pillow, not loaded.
        data: The bytes of its file.
        max_pixels: Of the largest image; what exceeds its scans is not counted to the end.
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
    """Count the scans of a JPEG file up to its end; a thumbnail inside a segment has its own.

    Args:
        data: Which holds the file.
        most: Of these and one more the count ends.
        start: Where the file begins.
        stop: Behind its last byte.
    """
    scans, markers, at, stop = 0, 0, start, len(data) if stop is None else stop
    while scans <= most and (found := _MARKER.search(data, at, stop)):
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            break
        markers += 1
        scans += marker == _SCAN or markers > MARKERS
        at += int.from_bytes(data[at : at + 2], "big")
    return max(1, scans)


def _scans_of_parts(image: Image.Image, data: bytes, most: int) -> int:
    """Return the most scans of a strip or tile of a TIFF file in JPEG; parts do not overlap."""
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
    """Return the pixels of a tile of a TIFF file, which may be larger than the image."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    sides = [tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
    whole = [side for side in sides if isinstance(side, int) and side > 0]
    return whole[0] * whole[1] if len(whole) == len(sides) else 0


class Memory:
    """Bytes for images that are decoded beside each other; one that needs all of them waits."""

    def __init__(self, total: int) -> None:
        """Say how many there are."""
        self._total, self._used = total, 0
        self._freed = threading.Condition()

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Give a claim on bytes, once, until the block ends; small ones are given at once."""
        held = 0

        def claim(count: int) -> None:
            nonlocal held
            if held or count <= SMALL:
                return
            count = min(count, self._total)
            with self._freed:
                self._freed.wait_for(lambda: self._used + count <= self._total)
                self._used += count
            held = count

        try:
            yield claim
        finally:
            with self._freed:
                self._used -= held
                self._freed.notify_all()


@cache
def hush_libtiff() -> None:
    """Keep libtiff's remarks on damaged files from the terminal; Pillow raises what matters.

    They are printed past Python, so the library that Pillow has loaded is told itself, once and
    for all threads.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (OSError, AttributeError):  # a Pillow without libtiff, or with one inside
        return
