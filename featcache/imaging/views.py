"""What the encoder sees of an image: its centre, or one of the recipes' views and crops.

Every view is a window, resampled, and for some recipes distorted after that. Resampling is torch's
antialiased filter on grey levels: integers from end to end, so the levels do not depend on the
machine, and one in 200 of them is off by one from Pillow's, which open_clip's preprocessing calls
(docs/decisions/resize-on-grey-levels.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image

from featcache.imaging.decode import Pixels
from featcache.imaging.distort import jitter, rand_augment, rotate
from featcache.imaging.randomness import Stream
from featcache.imaging.resample import resample
from featcache.imaging.windows import (
    Box,
    Preprocess,
    Window,
    central_window,
    random_window,
    square_window,
)
from featcache.recipes import RECIPES

Square = UInt8[np.ndarray, "s s 3"]
"""What the encoder takes."""


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """Which views of an image the encoder is shown; components of equal views share a forward."""

    recipe: str = ""
    """Empty for the central view."""
    count: int = 1
    """Views of one image."""
    seed: int = 0


CENTRAL = ViewSpec()


@dataclass(frozen=True, slots=True)
class View:
    """One view for the encoder."""

    pixels: Square
    box: Box
    """What it shows of the upright image."""


def central_view(image: Pixels, preprocess: Preprocess) -> Square:
    """Resize and crop as the backbone's own evaluation preprocessing does.

    Raises:
        UnreadableImageError: If the image is so elongated that resizing it needs gigabytes.
    """
    height, width, _ = image.shape
    window = central_window(width, height, preprocess)
    return cut(image, window, preprocess.side, preprocess.interpolation)


def draw_view(
    image: Pixels, preprocess: Preprocess, recipe: str, view: int, stream: Stream
) -> View:
    """Make one view or crop of an image.

    Args:
        image: What it shows a part of.
        preprocess: Size and filter.
        recipe: One of `featcache.recipes.RECIPES`, or empty for the central view.
        view: Its number; cdfsl goes round four kinds.
        stream: Its randomness.

    Raises:
        UnreadableImageError: If the image is so elongated that resizing it needs gigabytes.
    """
    height, width, _ = image.shape
    window = window_of(recipe, width, height, preprocess, stream)
    return View(show(image, window, preprocess, recipe, view, stream), window.box)


def window_of(
    recipe: str, width: int, height: int, preprocess: Preprocess, stream: Stream
) -> Window:
    """Choose what a view or crop shows; distortions draw their numbers from the stream after it.

    Raises:
        UnreadableImageError: If the image is so elongated that resizing it needs gigabytes.
    """
    made = RECIPES[recipe] if recipe else None
    if made is None or made.window == "central":
        return central_window(width, height, preprocess)
    draw = random_window if made.window == "random" else square_window
    return draw(width, height, made.share, preprocess.side, stream)


def show(
    image: Pixels,
    window: Window,
    preprocess: Preprocess,
    recipe: str,
    view: int,
    stream: Stream,
) -> Square:
    """Draw what is seen through a window, distorted where the recipe does that.

    Args:
        image: The whole.
        window: What `window_of` chose.
        preprocess: Size and filter.
        recipe: As for `draw_view`.
        view: Its number.
        stream: The one from which the window was chosen, as that left it.
    """
    pixels = cut(image, window, preprocess.side, preprocess.interpolation)
    if not distorts(recipe):
        return pixels
    distort = _DISTORTIONS[RECIPES[recipe].distortion]
    return np.asarray(distort(Image.fromarray(pixels), view, stream, preprocess))


def distorts(recipe: str) -> bool:
    """Tell whether a recipe distorts pixels besides cutting a window."""
    return bool(recipe and RECIPES[recipe].distortion)


def cut(image: Pixels, window: Window, side: int, interpolation: str) -> Square:
    """Resample a window of an image."""
    if window.width == 1:  # torch gets these wrong on CPUs without AVX2
        canvas = torch.from_numpy(image)[None]
        return resample(canvas, [0], [window], side, interpolation)[0].numpy()
    left, top, right, bottom = window.box
    levels = torch.from_numpy(image[top:bottom, left:right]).permute(2, 0, 1)[None]
    size = (window.height, window.width)
    shown = F.interpolate(levels, size, mode=interpolation, antialias=True)
    rows = shown[0].permute(1, 2, 0).numpy()[max(0, window.top) :, max(0, window.left) :]
    square = rows[:side, :side]
    if square.size < shown.numel():
        square = square.copy()  # not to keep the whole of a panorama alive
    if square.shape[0] < side or square.shape[1] < side:
        square = np.zeros((side, side, 3), dtype=np.uint8)
        y, x = max(0, -window.top), max(0, -window.left)
        square[y : y + len(rows), x : x + rows.shape[1]] = rows
    return square[:, ::-1] if window.mirrored else square


def _cdfsl(image: Image.Image, view: int, stream: Stream, preprocess: Preprocess) -> Image.Image:
    """Distort the central view: turned, jittered and mirrored; turned; jittered; mirrored."""
    kind = view % 4
    if kind in (0, 1):
        image = rotate(image, stream)
    if kind in (0, 2):
        image = jitter(image, stream)
    if kind in (0, 3):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def _rand_augment(
    image: Image.Image, view: int, stream: Stream, preprocess: Preprocess
) -> Image.Image:
    return rand_augment(image, stream, preprocess.fill)


_DISTORTIONS: Mapping[str, Callable[[Image.Image, int, Stream, Preprocess], Image.Image]] = {
    "rand_augment": _rand_augment,
    "cdfsl": _cdfsl,
}
"""Name in a recipe -> function of a resized view, its number, its random numbers, and the
preprocessing."""
