"""Three changes of medium that a method has not seen: a pencil sketch, a night, a photocopy."""

import random

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageFilter, ImageOps

from featcache.errors import UnknownNameError

SHIFTS: tuple[str, ...] = ("sketch", "night", "scan")
"""Names of the changes, each also the name of a test split."""

Pixels = UInt8[np.ndarray, "h w 3"]


def shift(pixels: Pixels, name: str, rng: random.Random) -> Pixels:
    """Show a picture in another medium.

    Args:
        pixels: The drawing.
        name: One of `SHIFTS`.
        rng: Only `rng.random()` is called.

    Raises:
        UnknownNameError: There is no such change.
    """
    if name not in SHIFTS:
        raise UnknownNameError("shift", name, SHIFTS)
    return {"sketch": _sketch, "night": _night, "scan": _scan}[name](pixels, rng)


def _grain(shape: tuple[int, ...], spread: int, rng: random.Random) -> np.ndarray:
    """Whole numbers in -spread..spread, triangular, equal on every machine."""
    count = int(np.prod(shape))
    raw = np.random.Philox(key=int(rng.random() * 2**31)).random_raw((count + 3) // 4)
    pairs = np.frombuffer(raw.astype("<u8").tobytes(), dtype=np.uint8).reshape(-1, 2)
    total = pairs.astype(np.int32).sum(axis=1)[:count]  # 0..510
    grain: np.ndarray = ((total - 255) * spread // 255).reshape(shape)
    return grain


def _clip(values: np.ndarray) -> Pixels:
    clipped: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    return clipped


def _sketch(pixels: Pixels, rng: random.Random) -> Pixels:
    image = Image.fromarray(pixels)
    grey = ImageOps.grayscale(image.filter(ImageFilter.GaussianBlur(0.6)))
    # Lines are where the picture is darker than its surroundings.
    around = grey.filter(ImageFilter.MaxFilter(5))
    lines = ImageChops.subtract(around, grey).point(
        [min(220, max(0, i - 16) * 3) for i in range(256)]
    )
    wash = 0.26 + 0.14 * rng.random()
    paper = (248, 244 - int(rng.random() * 8), 236 - int(rng.random() * 20))
    pale = Image.blend(Image.new("RGB", image.size, paper), image, wash)
    pale.paste((58, 54, 62), (0, 0), lines)
    return _clip(np.asarray(pale, dtype=np.int32) + _grain((*pixels.shape[:2], 1), 9, rng))


def _night(pixels: Pixels, rng: random.Random) -> Pixels:
    values = pixels.astype(np.int32)
    grey = (values * np.array([77, 150, 29])).sum(axis=2, keepdims=True) >> 8
    colour = 128 + int(rng.random() * 40)  # of 256: how much of the hue is left
    faded = (values * colour + grey * (256 - colour)) >> 8
    moon = np.array([88, 104, 168]) + int(rng.random() * 24)
    dark = (faded * moon >> 8) + np.array([6, 8, 26])
    return _clip(dark + _grain(pixels.shape, 8, rng))


def _scan(pixels: Pixels, rng: random.Random) -> Pixels:
    grey = ImageOps.grayscale(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.5)))
    values = np.asarray(ImageOps.autocontrast(grey, cutoff=1), dtype=np.int32)
    contrast = 140 + int(rng.random() * 40)  # of 256
    base = 62 + int(rng.random() * 24)
    rows = _grain((pixels.shape[0], 1), 6, rng)  # the lamp flickers from line to line
    page = (values * contrast >> 8) + base + rows + _grain(values.shape, 16, rng)
    return _clip(np.repeat(page[:, :, None], 3, axis=2))
