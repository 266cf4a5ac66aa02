"""Views of an image for the encoder: the central view, or views and crops of a recipe.

A view is a resampled window, which some recipes then distort. Resampling is torch's antialiased
filter on uint8. It is integer arithmetic, so the levels do not depend on the machine; one level in
200 differs by one from Pillow's filter, which open_clip's preprocessing uses
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
"""Input of the encoder."""


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """Views of an image; components with equal views share a forward pass."""

    recipe: str = ""
    """Name of the recipe; empty for the central view."""
    count: int = 1
    """Views per image."""
    seed: int = 0


CENTRAL = ViewSpec()


@dataclass(frozen=True, slots=True)
class View:
    """One view for the encoder."""

    pixels: Square
    box: Box
    """Box in the upright image."""


def central_view(image: Pixels, preprocess: Preprocess) -> Square:
    """Resize and crop as the evaluation preprocessing of the backbone does.

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
        image: Whole upright image.
        preprocess: Input size and filter.
        recipe: One of `featcache.recipes.RECIPES`, or empty for the central view.
        view: Number of the view; cdfsl cycles through four kinds.
        stream: Random numbers of the view.

    Raises:
        UnreadableImageError: If the image is so elongated that resizing it needs gigabytes.
    """
    height, width, _ = image.shape
    window = window_of(recipe, width, height, preprocess, stream)
    return View(show(image, window, preprocess, recipe, view, stream), window.box)


def window_of(
    recipe: str, width: int, height: int, preprocess: Preprocess, stream: Stream
) -> Window:
    """Choose the window of a view or crop; distortions use later numbers of the stream.

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
    """Cut a window, and distort it if the recipe does.

    Args:
        image: Whole upright image.
        window: Window from `window_of`.
        preprocess: Input size and filter.
        recipe: As for `draw_view`.
        view: Number of the view.
        stream: Random numbers of the view, after those that `window_of` used.
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
    if window.width == 1:  # torch is wrong here on CPUs without AVX2
        canvas = torch.from_numpy(image)[None]
        return resample(canvas, [0], [window], side, interpolation)[0].numpy()
    left, top, right, bottom = window.box
    levels = torch.from_numpy(image[top:bottom, left:right]).permute(2, 0, 1)[None]
    size = (window.height, window.width)
    resized = F.interpolate(levels, size, mode=interpolation, antialias=True)
    rows = resized[0].permute(1, 2, 0).numpy()[max(0, window.top) :, max(0, window.left) :]
    square = rows[:side, :side]
    if square.size < resized.numel():
        square = square.copy()  # release the memory of the whole resized image
    if square.shape[0] < side or square.shape[1] < side:
        square = np.zeros((side, side, 3), dtype=np.uint8)
        y, x = max(0, -window.top), max(0, -window.left)
        square[y : y + len(rows), x : x + rows.shape[1]] = rows
    return square[:, ::-1] if window.mirrored else square


def _cdfsl(image: Image.Image, view: int, stream: Stream, preprocess: Preprocess) -> Image.Image:
    """Rotate, jitter and mirror; rotate; jitter; mirror: by the number of the view, in turn."""
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
