"""Windows: which part of an image a view shows and at which size. Integer arithmetic, no pixels.

Random numbers of a window are a function of (seed, recipe, content hash, view index), so that they
do not depend on the order of a pass.
"""

import math
import re
from dataclasses import dataclass

from featcache.imaging.decode import MAX_PIXELS, UnreadableImageError
from featcache.imaging.distort import Colour
from featcache.imaging.randomness import Stream

MODES = ("shortest", "squash", "longest")
"""Ways to make an image square: centre crop, squashing, or black margins."""

FILTERS = ("bicubic", "bilinear")
"""Antialiased resampling filters."""

RATIO = (3 / 4, 4 / 3)
"""Smallest and largest aspect ratio (width / height) of a random window."""

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are exclusive."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Preprocessing of a backbone before normalisation."""

    side: int
    """Side of the square input in pixels."""
    mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: Colour = (0, 0, 0)
    """Colour of pixels that strong distortions take from outside the image: the mean colour that
    the backbone normalises by."""


@dataclass(frozen=True, slots=True)
class Window:
    """A box of an image, its size after resizing, and the square cut from it."""

    box: Box
    width: int
    """Width of the resized box."""
    height: int
    left: int = 0
    """Column of the resized box at which the square begins; negative for a black margin."""
    top: int = 0
    mirrored: bool = False


_WORDS = {
    "shortest": "the shorter side is resized to {side} pixels {by} and the central square is cut",
    "squash": "both sides are resized to {side} pixels {by}",
    "longest": "the longer side is resized to {side} pixels {by} and black margins make it square",
}
_RECORDED = re.compile(
    r"(?P<mode>[a-z]+) (?P<filter>[a-z]+) (?P<side>[0-9]+) antialias; "
    r"mean (?P<mean>[^;]+); std (?P<std>[^;]+)"
)


def in_words(preprocessing: str) -> str:
    """Say what `FeatureKey.preprocessing` does to an image; a line of another form is returned.

    Example:
        >>> in_words("squash bicubic 96 antialias; mean 0,0,0; std 1,1,1").partition(";")[0]
        'both sides are resized to 96 pixels (bicubic, antialiased)'
    """
    found = _RECORDED.fullmatch(preprocessing)
    if found is None or found["mode"] not in _WORDS:
        return preprocessing
    square = _WORDS[found["mode"]].format(
        side=found["side"], by=f"({found['filter']}, antialiased)"
    )
    return (
        f"{square}; from the values, in [0, 1], the mean {found['mean']} is subtracted, and they "
        f"are divided by {found['std']}"
    )


def central_window(width: int, height: int, preprocess: Preprocess) -> Window:
    """Return the window that the evaluation preprocessing of a backbone shows.

    Raises:
        UnreadableImageError: If the image is so elongated that resizing it needs gigabytes.
    """
    side, whole = preprocess.side, (0, 0, width, height)
    if preprocess.mode == "squash":
        return Window(whole, side, side)
    if preprocess.mode == "longest":
        shrink = max(width, height) / side
        w, h = round(width / shrink) or 1, round(height / shrink) or 1
        return Window(whole, w, h, -((side - w) // 2), -((side - h) // 2))
    # As torchvision: the longer side is rounded down, the margin to the nearest, halves to even.
    long = int(side * max(width, height) / min(width, height))
    if side * long > MAX_PIXELS:
        raise UnreadableImageError(f"is too elongated to be resized: {width} x {height} pixels")
    w, h = (side, long) if width <= height else (long, side)
    return Window(whole, w, h, round((w - side) / 2), round((h - side) / 2))


def random_window(
    width: int, height: int, scale: tuple[float, float], side: int, stream: Stream
) -> Window:
    """Draw a window as torchvision's RandomResizedCrop does, and whether to mirror it.

    Up to ten samples of area and aspect ratio; if none fits, the central window with the nearest
    allowed ratio.
    """
    log_ratio = (math.log(RATIO[0]), math.log(RATIO[1]))
    box = _nearest_ratio(width, height)
    for _ in range(10):
        area = width * height * stream.uniform(*scale)
        aspect = math.exp(stream.uniform(*log_ratio))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = stream.below(height - h + 1), stream.below(width - w + 1)
            box = (left, top, left + w, top + h)
            break
    return Window(box, side, side, mirrored=stream.uniform() < 0.5)


def square_window(
    width: int, height: int, share: tuple[float, float], side: int, stream: Stream
) -> Window:
    """Draw a square whose side is a share of the shorter side of the image."""
    low, high = share
    drawn = stream.uniform(low, high) if low < high else high
    edge = max(1, int(drawn * min(width, height)))
    top, left = stream.below(height - edge + 1), stream.below(width - edge + 1)
    return Window((left, top, left + edge, top + edge), side, side)


def _nearest_ratio(width: int, height: int) -> Box:
    low, high = RATIO
    w, h = width, height
    if width / height < low:
        h = round(width / low)
    elif width / height > high:
        w = round(height * high)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
