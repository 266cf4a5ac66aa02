"""What moths rest on: quiet textures, laid over a flat colour through masks that are made once."""

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from featcache.sources.fieldguide.scene import BACKGROUNDS, Scene

Colour = tuple[int, int, int]

_TILE = 256
_FRAME = 128

_BASE: dict[str, Colour] = {
    "sky": (150, 190, 226),
    "leaf": (138, 172, 112),
    "sand": (222, 196, 152),
    "bark": (160, 132, 110),
    "stone": (156, 154, 160),
}
_TONES: dict[str, tuple[int, int]] = {
    "sky": (64, 8),
    "leaf": (22, -26),
    "sand": (20, -40),
    "bark": (24, -44),
    "stone": (28, -32),
}
"""How far the light and the dark tone of the texture are from the base colour."""


def clamp(colour: Colour, by: int = 0) -> Colour:
    """Add the same to red, green and blue, kept within 0..255."""
    r, g, b = colour
    return (min(255, max(0, r + by)), min(255, max(0, g + by)), min(255, max(0, b + by)))


def _noise(seed: int, grain: tuple[int, int]) -> Image.Image:
    """Grey noise whose grains measure `grain` pixels of the tile, equal on every machine."""
    w, h = _TILE // grain[0], _TILE // grain[1]
    raw = np.random.Philox(key=seed).random_raw((w * h + 7) // 8)
    grey = np.frombuffer(raw.astype("<u8").tobytes(), dtype=np.uint8)[: w * h].reshape(h, w)
    image = Image.fromarray(grey)
    return image.resize((_TILE, _TILE), Image.Resampling.BICUBIC)


def _levels(image: Image.Image, low: int, high: int, top: int) -> Image.Image:
    """Stretch grey values so that low..high becomes 0..top."""
    table = [min(top, max(0, (i - low) * top // (high - low))) for i in range(256)]
    return image.point(table)


@functools.cache
def _masks(kind: str) -> tuple[Image.Image, Image.Image]:
    """Where the light and the dark tone of a texture show, as two tiles."""
    seed = 16 * BACKGROUNDS.index(kind)
    if kind == "sky":
        clouds = Image.blend(_noise(seed, (64, 32)), _noise(seed + 1, (16, 16)), 0.25)
        return _levels(clouds, 128, 190, 200), _levels(_noise(seed + 2, (128, 64)), 90, 200, 120)
    if kind == "leaf":
        return (
            _levels(_noise(seed, (32, 32)), 120, 220, 200),
            _levels(_noise(seed + 1, (16, 16)), 140, 230, 160),
        )
    if kind == "sand":
        grains = _noise(seed, (2, 2)).filter(ImageFilter.GaussianBlur(0.6))
        return _levels(_noise(seed + 1, (64, 16)), 110, 210, 200), _levels(grains, 165, 235, 190)
    if kind == "bark":
        streaks = _noise(seed, (4, 64))
        fine = Image.blend(_noise(seed + 1, (8, 64)), _noise(seed + 2, (2, 32)), 0.35)
        return _levels(streaks, 140, 230, 160), _levels(fine, 135, 195, 220)
    blotches = Image.blend(_noise(seed, (32, 32)), _noise(seed + 1, (8, 8)), 0.35)
    return _levels(blotches, 120, 190, 200), _levels(_noise(seed + 2, (16, 8)), 150, 230, 170)


def base_colour(scene: Scene) -> Colour:
    """Mix the background's colour for this scene."""
    r, g, b = _BASE[scene.background]
    dr, dg, db = scene.shade
    return clamp((r + dr, g + dg, b + db))


def backdrop(scene: Scene, size: int) -> Image.Image:
    """Paint the background, twice `size` a side."""
    base = base_colour(scene)
    image = Image.new("RGB", (_FRAME, _FRAME), base)
    left, top = scene.texture % _FRAME, (scene.texture >> 8) % _FRAME
    box = (left, top, left + _FRAME, top + _FRAME)
    for by, mask in zip(_TONES[scene.background], _masks(scene.background), strict=True):
        image.paste(clamp(base, by), (0, 0), mask.crop(box))
    smooth = Image.Resampling.NEAREST if size == _FRAME else Image.Resampling.BILINEAR
    image = image.resize((2 * size, 2 * size), smooth)
    if scene.background == "leaf":
        _veins(image, scene, clamp(base, 24))
    elif scene.background == "stone":
        _cracks(image, scene, clamp(base, -30))
    return image


def _veins(image: Image.Image, scene: Scene, colour: Colour) -> None:
    pen, side = ImageDraw.Draw(image), image.width
    foot, tip = (scene.texture >> 3) % side, (scene.texture >> 11) % side
    pen.line((foot, side, tip, 0), fill=colour, width=max(2, side // 50))
    for i in range(6):
        x, y = foot + (tip - foot) * i // 6, side - side * i // 6
        for way in (-1, 1):
            pen.line((x, y, x + way * side, y - side * 3 // 5), fill=colour, width=side // 128)


def _cracks(image: Image.Image, scene: Scene, colour: Colour) -> None:
    pen, side = ImageDraw.Draw(image), image.width
    state = scene.texture
    for _ in range(2):
        path = []
        x = state % side
        for i in range(6):
            state = (state * 1103515245 + 12345) % 2**31
            x += (state >> 8) % (side // 4) - side // 8
            path += [x, i * side // 5]
        pen.line(path, fill=colour, width=max(1, side // 128))


@functools.lru_cache(maxsize=2048)
def light_mask(direction: int, weight: int, lit: bool, size: int) -> Image.Image:
    """A ramp across the frame, for light from an eighth of a turn.

    Args:
        direction: 0..7, where light comes from.
        weight: Its largest value, 0..64 for 0..255.
        lit: Largest on the lit side instead of the other.
        size: Side in pixels.
    """
    dx, dy = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))[direction]
    if lit:
        dx, dy = -dx, -dy
    steps = np.arange(size, dtype=np.int64)
    ramp = dx * (2 * steps[None, :] - size + 1) + dy * (2 * steps[:, None] - size + 1)
    top = int(np.abs(ramp).max())
    return Image.fromarray(((ramp + top) * 255 * weight // (128 * top)).astype(np.uint8))
