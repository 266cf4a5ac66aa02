"""Distortions of views at the input size of the encoder.

rand_augment   RandAugment as timm's `rand-m9-mstd0.5-inc1`: two of 15 operations, each with
               probability 1/2 and a strength drawn from N(9, 0.5) on a scale of 0 to 10
jitter         brightness, contrast and saturation by 0.6 to 1.4, in random order, as torchvision's
               ColorJitter(0.4, 0.4, 0.4)
rotate         by up to 45 degrees, corners black

Source: operations and their scales are timm's (auto_augment.py); the random numbers are ours.
"""

from collections.abc import Callable
from itertools import permutations

from PIL import Image, ImageEnhance, ImageOps

from featcache.imaging.randomness import Stream

Colour = tuple[int, int, int]
Operation = Callable[[Image.Image, float, int, Colour], Image.Image]
"""(image, strength in [0, 1], sign, fill colour) -> image."""

LAYERS = 2
STRENGTH, DEVIATION, FULL = 9.0, 0.5, 10.0
JITTER = 0.4
DEGREES = 45.0

_BICUBIC = Image.Resampling.BICUBIC
_AFFINE = Image.Transform.AFFINE


def rand_augment(image: Image.Image, stream: Stream, fill: Colour) -> Image.Image:
    """Apply two random operations, each with probability 1/2; a layer uses five random numbers."""
    for _ in range(LAYERS):
        operation = OPERATIONS[stream.below(len(OPERATIONS))]
        applied = stream.uniform() < 0.5
        strength = min(max(stream.normal(STRENGTH, DEVIATION), 0.0), FULL) / FULL
        sign = stream.sign()
        if applied:
            image = operation(image, strength, sign, fill)
    return image


def jitter(image: Image.Image, stream: Stream) -> Image.Image:
    """Change brightness, contrast and saturation in random order; uses four random numbers."""
    order = _ORDERS[stream.below(len(_ORDERS))]
    factors = [stream.uniform(1.0 - JITTER, 1.0 + JITTER) for _ in _ENHANCERS]
    for which in order:
        image = _ENHANCERS[which](image).enhance(factors[which])
    return image


def rotate(image: Image.Image, stream: Stream) -> Image.Image:
    """Rotate by -45 to 45 degrees around the centre."""
    return image.rotate(stream.uniform(-DEGREES, DEGREES), _BICUBIC, fillcolor=(0, 0, 0))


_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
_ORDERS = tuple(permutations(range(3)))


def _auto_contrast(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return ImageOps.invert(image)


def _rotate(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return image.rotate(sign * 30.0 * strength, _BICUBIC, fillcolor=fill)


def _posterize(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    keep = 0xFF00 >> (4 - int(4 * strength)) & 0xFF  # the highest bits; none at full strength
    return image.point([level & keep for level in range(256)] * 3)


def _solarize(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return ImageOps.solarize(image, 256 - min(256, int(256 * strength)))


def _solarize_add(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    add = min(128, int(110 * strength))
    return image.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3)


def _enhance(
    enhancer: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Operation:
    def operation(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
        return enhancer(image).enhance(max(0.1, 1.0 + sign * 0.9 * strength))

    return operation


def _shear_x(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return _affine(image, (1.0, sign * 0.3 * strength, 0.0, 0.0, 1.0, 0.0), fill)


def _shear_y(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return _affine(image, (1.0, 0.0, 0.0, sign * 0.3 * strength, 1.0, 0.0), fill)


def _translate_x(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return _affine(image, (1.0, 0.0, sign * 0.45 * strength * image.width, 0.0, 1.0, 0.0), fill)


def _translate_y(image: Image.Image, strength: float, sign: int, fill: Colour) -> Image.Image:
    return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, sign * 0.45 * strength * image.height), fill)


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour) -> Image.Image:
    return image.transform(image.size, _AFFINE, matrix, _BICUBIC, fillcolor=fill)


OPERATIONS: tuple[Operation, ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _solarize_add,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
