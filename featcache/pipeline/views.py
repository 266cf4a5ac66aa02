"""Which window of a picture the encoder sees, and its exact resampling.

The window is arithmetic on integers; the randomness behind it comes from (seed, recipe, content
hash, view index) through a counter, so that a view does not depend on order, batch or machine.
Resampling is Pillow's antialiased filter with its rounding to grey levels, which is what open_clip
and torchvision apply: bit-equal to their preprocessing, and faster on a CPU than torch's.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from featcache.backbones.base import Backbone
from featcache.errors import BackboneError
from featcache.pipeline.decode import MAX_PIXELS, UnreadableImageError

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
        return cls(backbone.image_size, mode, interpolation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A random window: its share of the area, its aspect ratio, and whether it is mirrored."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    """Probability of mirroring left and right."""


RECIPES = {"rrc50": Recipe(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)}
"""rrc50: the augmentation under Tip-Adapter's cached keys."""


class Stream:
    """Uniform numbers that depend on a name and a position only."""

    def __init__(self, *name: object) -> None:
        self._name = "/".join(str(part) for part in name)
        self._position = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw from [low, high)."""
        text = f"{self._name}/{self._position}".encode()
        self._position += 1
        bits = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return low + (high - low) * ((bits >> 11) * 2.0**-53)

    def below(self, stop: int) -> int:
        """Draw an integer from 0 up to but without `stop`."""
        return int(self.uniform() * stop)


def random_window(width: int, height: int, recipe: Recipe, stream: Stream) -> tuple[Box, bool]:
    """Draw a window as torchvision's RandomResizedCrop does, and whether to mirror it.

    Ten tries at a share of the area and an aspect ratio; when none fits, the central window with
    the nearest ratio allowed.
    """
    log_ratio = (math.log(recipe.ratio[0]), math.log(recipe.ratio[1]))
    box = _central_window(width, height, recipe)
    for _ in range(10):
        area = width * height * stream.uniform(*recipe.scale)
        aspect = math.exp(stream.uniform(*log_ratio))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = stream.below(height - h + 1), stream.below(width - w + 1)
            box = (left, top, left + w, top + h)
            break
    return box, stream.uniform() < recipe.flip


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


def random_view(
    image: Image.Image, preprocess: Preprocess, recipe: str, stream: Stream
) -> UInt8[np.ndarray, "s s 3"]:
    """Cut out a random window, resize it to the backbone's square, mirror it or not."""
    box, mirrored = random_window(*image.size, RECIPES[recipe], stream)
    side = preprocess.side
    view = image.crop(box).resize((side, side), _FILTERS[preprocess.interpolation])
    return _pixels(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view)


def view_stream(seed: int, recipe: str, sha256: str, view: int) -> Stream:
    """Name the randomness of one view: ten views are the first ten of twenty."""
    return Stream(seed, recipe, sha256, view)


def _central_window(width: int, height: int, recipe: Recipe) -> Box:
    low, high = recipe.ratio
    w, h = width, height
    if width / height < low:
        h = round(width / low)
    elif width / height > high:
        w = round(height * high)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "s s 3"]:
    return np.asarray(image)
