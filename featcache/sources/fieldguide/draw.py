"""A moth in a scene becomes pixels: polygons at twice the size, then averaged down.

Coordinates are rounded to whole pixels before they are painted and all shading is done in
integers, so that two machines agree within one grey level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFilter

from featcache.sources.fieldguide.anatomy import Anatomy, anatomy
from featcache.sources.fieldguide.backdrop import (
    Colour,
    backdrop,
    base_colour,
    clamp,
    light_mask,
)
from featcache.sources.fieldguide.scene import Scene, sample_scene
from featcache.sources.fieldguide.traits import COLOURS, PARTS, Moth

__all__ = ["Box", "Drawing", "Scene", "draw", "sample_scene"]

Box = tuple[float, float, float, float]
_INK: Colour = (30, 26, 32)
_CREAM: Colour = (250, 244, 224)
_NIGHTSIDE: Colour = (24, 22, 40)
_GROUNDS = ("forewing", "hindwing", "body")
"""Roles whose polygons reach as far as their part does."""
_UNIT = 0.41
"""Half a wing span at scale 1, in frame widths."""
_SHADOW = 0.022
"""Offset of the shadow, in frame widths."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture and where its parts are."""

    pixels: UInt8[np.ndarray, "h w 3"]
    boxes: dict[str, Box]
    """Part -> x0 y0 x1 y1 in pixels, cut at the frame; parts absent or outside have no box."""
    masks: dict[str, Bool[np.ndarray, "h w"]] | None
    """Part -> its visible pixels; empty for a part that is absent. None unless asked for."""


def draw(
    moth: Moth,
    scene: Scene,
    *,
    size: int = 128,
    masks: bool = False,
    under: Sequence[tuple[Moth, Scene]] = (),
) -> Drawing:
    """Paint a moth.

    Args:
        moth: What it looks like.
        scene: How it is seen.
        size: Side of the square picture in pixels.
        masks: Also find the pixels of every part; takes about half as long again.
        under: Other moths, painted before it in the light of `scene`; they have no boxes or masks.
    """
    plan = anatomy(moth)
    placed = _place(plan, scene, size)
    image = backdrop(scene, size)
    for other, seen in under:
        below = anatomy(other)
        _paint(image, below, _place(below, seen, size), _palette(other, seen), seen, size)
    _paint(image, plan, placed, _palette(moth, scene), scene, size)
    image = _light(image.reduce(2), scene, size)
    boxes = _boxes(plan, placed, size)
    found = _masks(plan, placed, scene, size) if masks else None
    return Drawing(np.asarray(image), boxes, found)


_Placed = dict[str, tuple[list[int], ...]]
"""Group -> flat coordinates on the doubled canvas, for the right side, then the left."""


def _place(plan: Anatomy, scene: Scene, size: int) -> _Placed:
    unit = 2 * size * _UNIT * scene.scale
    turn = math.radians(scene.rotation)
    cos, sin = unit * math.cos(turn), unit * math.sin(turn)
    # The middle of a moth with tails lies a little below its thorax.
    cx = 2 * size * (0.5 + scene.x) + 0.14 * sin
    cy = 2 * size * (0.5 + scene.y) - 0.14 * cos
    lowered = {"fore": scene.fore, "hind": scene.hind, "antenna": scene.antennae}
    placed: _Placed = {}
    for group, points in plan.arrays.items():
        x, y = points[:, 0], points[:, 1]
        sides = []
        for side in (1, 0) if group != "trunk" else (2,):
            px, py = x, y
            if side != 2:
                angle = math.radians(lowered[group][side])
                c, s = math.cos(angle), math.sin(angle)
                wide = scene.foreshortening[side] if group != "antenna" else 1.0
                flip = 1.0 if side == 1 else -1.0
                px, py = flip * wide * (c * x - s * y), s * x + c * y
            flat = np.empty(2 * len(x))
            flat[0::2] = cx + cos * px - sin * py
            flat[1::2] = cy + sin * px + cos * py
            sides.append(np.rint(flat).astype(np.int64).tolist())
        placed[group] = tuple(sides)
    return placed


def _ink_of(colour: Colour) -> Colour:
    """A dark line of the same hue."""
    r, g, b = colour
    return (r * 2 // 7 + 8, g * 2 // 7 + 4, b * 2 // 7 + 8)


def _vein_of(colour: Colour) -> Colour:
    r, g, b = colour
    return (r * 4 // 5, g * 4 // 5, b * 4 // 5)


def _bright(colour: Colour) -> bool:
    r, g, b = colour
    return 3 * r + 6 * g + b > 1250


def _palette(moth: Moth, scene: Scene) -> dict[str, Colour]:
    fore = clamp(COLOURS[moth.forewing], scene.bleach[0])
    hind = clamp(COLOURS[moth.hindwing], scene.bleach[1])
    body = clamp(COLOURS[moth.body], scene.bleach[2])
    pattern = clamp(COLOURS[moth.pattern_colour], scene.bleach[0])
    dark_eye = moth.pattern_colour != "black"
    return {
        "ink": _INK,
        "forewing": fore,
        "fore_line": _ink_of(fore),
        "fore_vein": _vein_of(fore),
        "pattern": pattern,
        "eye": _INK if dark_eye else _CREAM,
        "pupil": _CREAM if dark_eye else _INK,
        "hindwing": hind,
        "hind_line": _ink_of(hind),
        "hind_vein": _vein_of(hind),
        "dot": _INK if _bright(hind) else _CREAM,
        "fringe": _CREAM,
        "body": body,
        "body_line": _ink_of(body),
        "club": clamp(body, 30),
        "rings": COLOURS[moth.rings] if moth.rings != "none" else body,
    }


def _paint(
    image: Image.Image,
    plan: Anatomy,
    placed: _Placed,
    palette: dict[str, Colour],
    scene: Scene,
    size: int,
) -> None:
    pen = ImageDraw.Draw(image)
    unit = 2 * size * _UNIT * scene.scale
    r, g, b = base_colour(scene)
    shade = (r * 3 // 4, g * 3 // 4, b * 3 // 4)
    offset = max(1, round(2 * size * _SHADOW))
    for stroke in plan.strokes:
        if stroke.role in ("forewing", "hindwing") and not stroke.width:
            for flat in placed[stroke.group]:
                pen.polygon([c + offset for c in flat[stroke.start : stroke.stop]], fill=shade)
    for stroke in plan.strokes:
        colour = palette[stroke.role]
        start, stop = stroke.start, stroke.stop
        if stroke.width:
            width = max(1, round(stroke.width * unit))
            for flat in placed[stroke.group]:
                pen.line(flat[start:stop], fill=colour, width=width)
        else:
            for flat in placed[stroke.group]:
                pen.polygon(flat[start:stop], fill=colour)
    for i, blade in enumerate(_blades(scene, size)):
        pen.polygon(blade, fill=((62, 110, 50), (88, 128, 62))[i % 2])


def _blades(scene: Scene, size: int) -> list[list[int]]:
    side, blades = 2 * size, []
    for foot, tip, height in scene.grass:
        x, y = round(foot * side), round((1 - height) * side)
        wide, middle = side // 48, (side + y) // 2
        bend = round((0.75 * foot + 0.25 * tip) * side)
        end = round((0.6 * foot + 0.4 * tip) * side)
        near, far = (bend - wide, middle), (bend + wide // 2, middle)
        blades.append([x - wide, side, *near, end, y, *far, x + wide, side])
    return blades


def _light(image: Image.Image, scene: Scene, size: int) -> Image.Image:
    image.paste(_NIGHTSIDE, (0, 0), light_mask(scene.light, int(scene.shadow * 64), False, size))
    glow = int(scene.glow * 64)
    if glow:
        image.paste(scene.tint, (0, 0), light_mask(scene.light, glow, True, size))
    if scene.blur:
        image = image.filter(ImageFilter.GaussianBlur(scene.blur * size / 100))
    return image


def _boxes(plan: Anatomy, placed: _Placed, size: int) -> dict[str, Box]:
    xs: dict[str, list[int]] = {}
    ys: dict[str, list[int]] = {}
    for stroke in plan.strokes:
        if stroke.role in _GROUNDS or stroke.part == "antennae":
            for flat in placed[stroke.group]:
                xs.setdefault(stroke.part, []).extend(flat[stroke.start : stroke.stop : 2])
                ys.setdefault(stroke.part, []).extend(flat[stroke.start + 1 : stroke.stop : 2])
    xs["body"] += xs["abdomen"]
    ys["body"] += ys["abdomen"]
    boxes: dict[str, Box] = {}
    for part in PARTS:
        if part in xs:
            # Lines are wider than their points: two pixels hold the widest one.
            x0, x1 = max(0.0, min(xs[part]) / 2 - 2), min(float(size), max(xs[part]) / 2 + 2)
            y0, y1 = max(0.0, min(ys[part]) / 2 - 2), min(float(size), max(ys[part]) / 2 + 2)
            if x0 < x1 and y0 < y1:
                boxes[part] = (x0, y0, x1, y1)
    return boxes


def _masks(
    plan: Anatomy, placed: _Placed, scene: Scene, size: int
) -> dict[str, Bool[np.ndarray, "h w"]]:
    layer = Image.new("L", (2 * size, 2 * size), 0)
    pen = ImageDraw.Draw(layer)
    unit = 2 * size * _UNIT * scene.scale
    for stroke in plan.strokes:
        if not stroke.part:
            continue
        number = 1 + PARTS.index(stroke.part)
        for flat in placed[stroke.group]:
            points = flat[stroke.start : stroke.stop]
            if stroke.width:
                pen.line(points, fill=number, width=max(1, round(stroke.width * unit)))
            else:
                pen.polygon(points, fill=number)
    for blade in _blades(scene, size):
        pen.polygon(blade, fill=0)
    numbers = np.asarray(layer)[::2, ::2]
    found = {part: numbers == 1 + i for i, part in enumerate(PARTS)}
    found["body"] = found["body"] | found["abdomen"]
    return found
