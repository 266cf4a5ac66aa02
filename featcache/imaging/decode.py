"""Decode the bytes of a file to an upright 8-bit RGB image, or say why it is unreadable.

The result is that of `PIL.Image.convert("RGB")`, as in open_clip's preprocessing, with three
differences: the EXIF orientation is applied, 16-bit grey is scaled to 8 bits and not clipped, and
palettes are resolved before resizing. Transparency is dropped, not composited.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from featcache.errors import BackboneError, SourceError
from featcache.imaging.decode_work import BYTES, SCANS, SMALL, Cost, cost_of, hush_libtiff
from featcache.imaging.jpeg import decode_jpeg
from featcache.limits import IMAGE_FILE, PIXELS
from featcache.places import Place
from featcache.scarcity import lacking

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are decoded; no other parser is used."""

MAX_PIXELS = PIXELS.most
"""Default limit of pixels per image."""

BAND_BYTES = 1 << 24
"""Bytes of an image converted at once."""

_RAISE = f"raise it with max_pixels or {PIXELS.variable}"
_GAP = rb"(?:[ \t\n\v\f\r]|#[^\r\n]*[\r\n])+"
_SIZE = _GAP + rb"[0-9]{1,9}" + _GAP + rb"[0-9]{1,9}"
_PNM = re.compile(
    rb"(?:P4%b|P5%b%b(?:255|65535)|P6%b%b255)[ \t\n\v\f\r]" % (_SIZE, _SIZE, _GAP, _SIZE, _GAP)
)
"""Header of a binary PBM, PGM (8 or 16 bits) or PPM (8 bits) file. Pillow reads the pixels of other
kinds one by one in Python, and a comment without end byte by byte."""
_PNM_HEAD = 4096
"""Bytes within which the header has to end."""
_ORIENTATION_TAG = 0x0112
_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations in which rows are stored as columns."""
_FLIPPED = {
    2: (1, -1),
    3: (-1, -1),
    4: (-1, 1),
    5: (1, 1),
    6: (1, -1),
    7: (-1, -1),
    8: (-1, 1),
}
"""EXIF orientation -> steps through rows and columns, after transposing, for an upright image."""

Pixels = UInt8[np.ndarray, "h w 3"]
"""Upright, RGB."""
Room = Callable[..., UInt8[np.ndarray, "..."]]
"""Allocates uninitialised memory of a shape."""
Claim = Callable[[int], None]
"""Waits until so many bytes may be used."""


class UnreadableImageError(SourceError):
    """An unreadable image; the message is its name, if given, and the reason."""

    def __init__(self, reason: str, image: str = "") -> None:
        """Store the reason and the name.

        Args:
            reason: The fault, as a predicate: "is empty".
            image: Name of the image, if the caller does not know it.
        """
        super().__init__(f"{image} {reason}" if image else reason)
        self.reason, self.image = reason, image


class TooManyPixelsError(UnreadableImageError):
    """An image above the limit of pixels."""


def pixel_limit(value: int | None = None) -> int:
    """Return the limit of pixels per image: the argument, the environment variable or the default.

    Raises:
        UsageError: If the environment variable is not a positive integer.
    """
    limit = PIXELS.value() if value is None else value
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow's limit is global to the process; `check_size` applies ours per image.
        Image.MAX_IMAGE_PIXELS = limit
    return limit


def plain_room(*shape: int) -> UInt8[np.ndarray, "..."]:
    """Allocate uninitialised memory."""
    return np.empty(shape, dtype=np.uint8)


def read_image(
    place: Place,
    sha256: str,
    *,
    max_pixels: int = MAX_PIXELS,
    room: Room = plain_room,
    claim: Claim = lambda _: None,
) -> Pixels:
    """Read an image, check that its bytes are the listed ones, and decode it.

    Args:
        place: Place of the encoded bytes.
        sha256: Expected hash of the bytes.
        max_pixels: Limit of pixels.
        room: Allocates memory for the pixels.
        claim: Called with the bytes that decoding needs before they are used; may wait.

    Raises:
        UnreadableImageError: If the bytes are missing, have changed, or are not an image.
    """
    data = read_bytes(place, max_pixels=max_pixels, claim=claim)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnreadableImageError("changed on disk while the features were extracted")
    return decode(data, max_pixels=max_pixels, room=room, claim=claim)


def read_bytes(
    place: Place, *, max_pixels: int = MAX_PIXELS, claim: Claim = lambda _: None
) -> bytes:
    """Read the bytes of an image, of bounded size; arguments as for `read_image`.

    Raises:
        UnreadableImageError: If they are missing, damaged, too many or unreadable.
    """
    try:
        size = place.size()
        if size > SMALL:  # its content is unknown, so claim the maximum
            claim(size + BYTES * max_pixels)
        return place.read(IMAGE_FILE)
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    room: Room = plain_room,
    claim: Claim = lambda _: None,
) -> Pixels:
    """Decode the bytes of a file to upright 8-bit RGB; of an animation, the first frame.

    Raises:
        UnreadableImageError: If the bytes are not a complete image of a supported format.
        BackboneError: If there is not enough memory.
    """
    with _opened(data, max_pixels) as image:
        check_size(image.width, image.height, max_pixels)
        cost = cost_of(image, data, max_pixels)
        if why := _too_costly(cost, max_pixels):
            raise UnreadableImageError(why)
        claim(cost.bytes)
        levels = decode_jpeg(image, data, room)
        if levels is None:
            levels = _load(image, room)
        orientation = _orientation(image)
    return _upright(levels, orientation, room)


def size_of(data: bytes) -> tuple[int, int]:
    """Read width and height off the header of an image's bytes; nothing is decoded.

    Raises:
        TooManyPixelsError: If Pillow itself refuses so many pixels.
        UnreadableImageError: If they are not those of a supported format.
    """
    # Pillow's own limit is that of `pixel_limit`; the caller may have a smaller one.
    with quiet_pillow(), _opened(data, pixel_limit()) as image:
        return image.width, image.height


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Read the header of a file; errors inside the block become reasons, too."""
    if not data:
        raise UnreadableImageError("is empty")
    if _is_odd_pnm(data):
        raise UnreadableImageError("is a PBM, PGM or PPM file, and not a binary one of 8 bits")
    with _reasons(max_pixels):
        hush_libtiff()
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            yield image


def pixels_of(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Convert the current frame of a Pillow image as `decode` converts a file.

    Only the limit of pixels is checked; the caller is responsible for format and cost.

    Raises:
        UnreadableImageError: If it has no or too many pixels, cannot be loaded, or has a pixel
            type without a defined white level.
    """
    with _reasons(max_pixels):
        check_size(image.width, image.height, max_pixels)
        levels = _load(image, plain_room)
        orientation = _orientation(image)
    return _upright(levels, orientation, plain_room)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image without pixels or with too many.

    Raises:
        UnreadableImageError: If its size is out of range.
    """
    if not width * height:
        raise UnreadableImageError("is empty")
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"has {width} x {height} pixels, above the limit of {max_pixels:,}; {_RAISE}"
        )


@contextmanager
def _reasons(max_pixels: int) -> Iterator[None]:
    """Convert errors of decoders to the reason why an image is unreadable."""
    try:
        yield
    except (UnreadableImageError, BackboneError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"is no image of a known format ({', '.join(FORMATS)})"
        ) from error
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(
            f"has more pixels than the limit of {max_pixels:,}; {_RAISE}"
        ) from error
    except MemoryError as error:  # the cost of the file was checked before
        raise BackboneError(lacking(error)) from error
    # Pillow's parsers raise many kinds of errors: struct.error, IndexError, zlib.error, ...
    except Exception as error:
        raise UnreadableImageError(f"cannot be decoded: {_first_line(error)}") from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings on damaged metadata.

    The filter is inserted and removed individually: generators use this while the code of their
    callers runs, and `warnings.catch_warnings` would reset filters which that code sets.
    """
    ignore = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    cast(list[object], warnings.filters).insert(0, ignore)
    try:
        yield
    finally:
        with suppress(ValueError):  # the filters were reset meanwhile
            cast(list[object], warnings.filters).remove(ignore)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert to RGB from any mode."""
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
        return image.convert("RGBA").convert("RGB")  # direct conversion warns
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    # The parser raises SyntaxError, struct.error, KeyError, ... on damaged EXIF blocks.
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _load(image: Image.Image, room: Room) -> Pixels:
    image.load()
    levels = room(image.height, image.width, 3)
    _copy_out(image, levels)
    return levels


def _copy_out(image: Image.Image, levels: Pixels) -> None:
    """Convert and copy in bands, because Pillow's `tobytes` needs twice the memory."""
    height, width, _ = levels.shape
    rows = max(1, BAND_BYTES // (3 * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image if rows >= height else image.crop((0, top, width, bottom))
        data = _eight_bit(band).tobytes()
        levels[top:bottom].reshape(-1)[:] = np.frombuffer(data, dtype=np.uint8)


def _upright(
    levels: Pixels, orientation: int, room: Room
) -> UInt8[np.ndarray, "h_upright w_upright 3"]:
    if orientation not in _FLIPPED:
        return levels
    turned = levels.swapaxes(0, 1) if orientation in _TRANSPOSED else levels
    rows, columns = _FLIPPED[orientation]
    turned = turned[::rows, ::columns]
    upright = room(*turned.shape)
    upright[...] = turned
    return upright


def _is_odd_pnm(data: bytes) -> bool:
    """Tell whether Pillow would take it for a PBM, PGM or PPM file, and it is not a plain one."""
    return re.match(rb"P[0-6fy]", data) is not None and not _PNM.match(data[:_PNM_HEAD])


def _too_costly(cost: Cost, max_pixels: int) -> str:
    """Return why decoding would cost too much; empty if it would not."""
    if cost.scanned > SCANS * max_pixels:
        return (
            f"goes over its pixels in {cost.scans:,} scans or more, {cost.scanned:,} pixels, above "
            f"the limit of {SCANS * max_pixels:,} ({SCANS} times max_pixels); {_RAISE}"
        )
    if cost.bytes > BYTES * max_pixels:
        return (
            f"takes {cost.bytes:,} bytes to decode, above the limit of {BYTES * max_pixels:,} "
            f"({BYTES} times max_pixels); {_RAISE}"
        )
    return ""


def _first_line(error: BaseException) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if len(text) <= 160 else text[:157] + "..."
