"""What decoding a picture takes, counted in its file before it is begun, and who may begin.

Counted are the scans of a JPEG file, each of which goes over the whole picture, and the bytes that
the decoder of the format holds at once; never seconds or free memory, so that the same images are
readable on every machine. docs/reliability.md has the measurements behind the bytes.
"""

import ctypes
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from PIL import Image, _imaging

SCANS = 6
"""Scans of the largest picture: about 2^30 pixels, of 100 megapixels ten scans."""
BYTES = 12
"""For each pixel of the largest picture: 2 GiB; what all decoders hold at most."""
WEBP_BYTES = 20
"""For a pixel of a WebP file, whose decoder holds two canvases and a copy."""
SMALL = 1 << 26
"""Bytes that a picture may take without asking whether there is room for it."""
SCAN_PIXELS = 1024
"""That a scan costs, however small the picture is."""

_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
"""Of JPEG; not a restart marker, nor a byte 0xff of the data, behind which a zero stands."""
_ALONE = frozenset(b"\x01\xd8")
"""Markers without a length."""
_SCAN, _END = 0xDA, 0xD9
_TILE_WIDTH, _TILE_LENGTH = 322, 323


@dataclass(frozen=True, slots=True)
class Cost:
    """Of decoding one picture."""

    scanned: int
    """Pixels, each as often as it is gone over."""
    scans: int
    bytes: int
    """Held at once."""


def cost_of(image: Image.Image, data: bytes) -> Cost:
    """Count what decoding takes.

    Args:
        image: Opened by Pillow, not loaded.
        data: The bytes of its file.
    """
    pixels = image.width * image.height
    scans = count_scans(data) if data[:2] == b"\xff\xd8" else 1
    each = WEBP_BYTES if image.format == "WEBP" else BYTES
    return Cost(scans * max(pixels, SCAN_PIXELS), scans, each * (pixels + _tile(image)))


def count_scans(data: bytes) -> int:
    """Count the scans of a JPEG file up to its end; a thumbnail inside a segment has its own."""
    scans, at = 0, 0
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            break
        if marker in _ALONE:
            continue
        scans += marker == _SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return max(1, scans)


def _tile(image: Image.Image) -> int:
    """Return the pixels of a tile of a TIFF file, which may be larger than the picture."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    sides = [tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
    whole = [side for side in sides if isinstance(side, int) and side > 0]
    return whole[0] * whole[1] if len(whole) == len(sides) else 0


class Memory:
    """Bytes for pictures that are decoded beside each other; one that needs all of them waits."""

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
