"""What the encoder sees of a picture: its centre, or one of the recipes' windows.

A window is arithmetic on integers; the randomness behind it comes from (seed, recipe, content
hash, view index) through a counter. Resampling is Pillow's antialiased filter with its rounding to
grey levels, which is what open_clip and torchvision apply: bit-equal to their preprocessing, and
faster on a CPU than torch's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from featcache.backbones.base import Backbone
from featcache.errors import BackboneError
from featcache.pipeline.decode import MAX_PIXELS, UnreadableImageError
from featcache.pipeline.distort import Colour, jitter, rand_augment, rotate
from featcache.pipeline.randomness import Stream

MODES = ("shortest", "squash", "longest")
"""How a picture becomes a square: centre crop, distortion, or black margins."""

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom lie outside."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a backbone wants its pixels, up to normalisation."""

    side: int
    """Of the square input in pixels."""
    mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: Colour = (0, 0, 0)
    """What strong distortions bring in from outside: the encoder's mean colour."""

    @classmethod
    def of(cls, backbone: Backbone) -> "Preprocess":
        """Read a backbone's wishes.

        Raises:
            BackboneError: If it wants a mode or a filter that is not known here.
        """
        mode, interpolation = backbone.resize_mode, backbone.interpolation
        if mode not in MODES or interpolation not in _FILTERS:
            raise BackboneError(
                f"{backbone.name} wants its images resized by '{mode}' with '{interpolation}'; "
                f"expected one of {', '.join(MODES)} with one of {', '.join(_FILTERS)}."
            )
        red, green, blue = (min(255, round(255 * level)) for level in backbone.mean)
        return cls(backbone.image_size, mode, interpolation, (red, green, blue))


RATIO = (3 / 4, 4 / 3)
"""Width to height of a random window, least and largest."""


def random_window(
    width: int, height: int, scale: tuple[float, float], stream: Stream
) -> tuple[Box, bool]:
    """Draw a window as torchvision's RandomResizedCrop does, and whether to mirror it.

    Ten tries at a share of the area and an aspect ratio; when none fits, the central window with
    the nearest ratio allowed.
    """
    log_ratio = (math.log(RATIO[0]), math.log(RATIO[1]))
    box = _central_window(width, height)
    for _ in range(10):
        area = width * height * stream.uniform(*scale)
        aspect = math.exp(stream.uniform(*log_ratio))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = stream.below(height - h + 1), stream.below(width - w + 1)
            box = (left, top, left + w, top + h)
            break
    return box, stream.uniform() < 0.5


def central_view(image: Image.Image, preprocess: Preprocess) -> UInt8[np.ndarray, "s s 3"]:
    """Resize and crop as the backbone's own evaluation preprocessing does.

    Raises:
        UnreadableImageError: If the picture is so elongated that resizing it needs gigabytes.
    """
    side = preprocess.side
    filter_ = _FILTERS[preprocess.interpolation]
    if preprocess.mode == "squash":
        return _pixels(image.resize((side, side), filter_))
    width, height = image.size
    if preprocess.mode == "longest":
        ratio = max(width, height) / side
        fitted = image.resize((round(width / ratio) or 1, round(height / ratio) or 1), filter_)
        canvas = Image.new("RGB", (side, side))
        canvas.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
        return _pixels(canvas)
    # torchvision truncates the longer side and rounds the margin half to even.
    long = int(side * max(width, height) / min(width, height))
    if side * long > MAX_PIXELS:
        raise UnreadableImageError(f"is too elongated to be resized: {width} x {height} pixels")
    size = (side, long) if width <= height else (long, side)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return _pixels(image.resize(size, filter_).crop((left, top, left + side, top + side)))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One picture for the encoder."""

    pixels: UInt8[np.ndarray, "s s 3"]
    box: Box
    """What it shows of the upright picture."""


def draw_view(
    image: Image.Image, preprocess: Preprocess, recipe: str, view: int, stream: Stream
) -> Drawn:
    """Make one view or crop of a picture.

    Args:
        image: Upright, RGB.
        preprocess: Size and filter.
        recipe: One of `featcache.recipes.RECIPES`.
        view: Its number; cdfsl goes round four kinds.
        stream: Its randomness.

    Raises:
        UnreadableImageError: If the picture is so elongated that resizing it needs gigabytes.
    """
    return _DRAWERS[recipe](image, preprocess, view, stream)


def _resized_crop(scale: tuple[float, float], distort: bool) -> "_Drawer":
    """Make rrc50 and strong: a random window, mirrored or not, distorted or not."""

    def draw(image: Image.Image, preprocess: Preprocess, view: int, stream: Stream) -> Drawn:
        box, mirrored = random_window(*image.size, scale, stream)
        picture = _cut(image, box, preprocess)
        if mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if distort:
            picture = rand_augment(picture, stream, preprocess.fill)
        return Drawn(_pixels(picture), box)

    return draw


def _square_crop(low: float, high: float) -> "_Drawer":
    """Make lazsl, fair and weak: a square whose side is a share of the picture's shorter one."""

    def draw(image: Image.Image, preprocess: Preprocess, view: int, stream: Stream) -> Drawn:
        width, height = image.size
        share = stream.uniform(low, high) if low < high else high
        side = max(1, int(share * min(width, height)))
        top, left = stream.below(height - side + 1), stream.below(width - side + 1)
        box = (left, top, left + side, top + side)
        return Drawn(_pixels(_cut(image, box, preprocess)), box)

    return draw


def _cdfsl(image: Image.Image, preprocess: Preprocess, view: int, stream: Stream) -> Drawn:
    """Distort the central view: turned, jittered and mirrored; turned; jittered; mirrored."""
    picture = Image.fromarray(central_view(image, preprocess))
    kind = view % 4
    if kind in (0, 1):
        picture = rotate(picture, stream)
    if kind in (0, 2):
        picture = jitter(picture, stream)
    if kind in (0, 3):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Drawn(_pixels(picture), (0, 0, *image.size))


_Drawer = Callable[[Image.Image, Preprocess, int, Stream], Drawn]

_DRAWERS: Mapping[str, _Drawer] = {
    "rrc50": _resized_crop((0.5, 1.0), distort=False),
    "strong": _resized_crop((0.3, 1.0), distort=True),
    "weak": _square_crop(1.0, 1.0),
    "cdfsl": _cdfsl,
    "lazsl": _square_crop(0.6, 0.9),
    "fair": _square_crop(0.5, 0.9),
}


def _cut(image: Image.Image, box: Box, preprocess: Preprocess) -> Image.Image:
    side = preprocess.side
    return image.crop(box).resize((side, side), _FILTERS[preprocess.interpolation])


def _central_window(width: int, height: int) -> Box:
    low, high = RATIO
    w, h = width, height
    if width / height < low:
        h = round(width / low)
    elif width / height > high:
        w = round(height * high)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "s s 3"]:
    return np.asarray(image)
