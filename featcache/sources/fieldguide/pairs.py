"""Two moths in a picture: the label's, and a smaller one of another species beside it.

A window of such a picture may show the other species alone, so what is sure of its answer there is
wrong. The moths lie on opposite sides of the middle, in one light, the label's above.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from featcache.sources.fieldguide.draw import Drawing, draw, sample_scene
from featcache.sources.fieldguide.scene import Scene
from featcache.sources.fieldguide.species import Species

_TURN = 50.0
"""Most degrees that either is turned."""
_SPAN = 0.45
"""Distance of the two, in frame widths for each unit of their scales: they seldom touch."""
_DRIFT = 0.04
"""How far both are moved together, in frame widths."""


def draw_pair(
    kinds: Sequence[Species], label: int, rng: random.Random, *, size: int, masks: bool
) -> Drawing:
    """Draw the species `label` and one other; boxes and masks are those of the label's.

    Args:
        kinds: All species.
        label: Index of the larger moth.
        rng: Only `rng.random()` is called.
        size: Side of the picture in pixels.
        masks: Also find the pixels of every part.
    """
    scene, other_scene = sample_scene(rng), sample_scene(rng)
    other = kinds[(label + 1 + int(rng.random() * (len(kinds) - 1))) % len(kinds)]
    large, small = _apart(scene, other_scene, rng)
    return draw(kinds[label].moth, large, size=size, masks=masks, under=[(other.moth, small)])


def _apart(scene: Scene, other: Scene, rng: random.Random) -> tuple[Scene, Scene]:
    """Place the two; the smaller one has 0.5 to 0.75 of the size of the larger."""

    def around(spread: float) -> float:
        return (rng.random() * 2 - 1) * spread

    large = 0.5 + 0.15 * rng.random()
    small = large * (0.5 + 0.25 * rng.random())
    angle = 2 * math.pi * rng.random()
    x, y = around(_DRIFT), around(_DRIFT)
    dx, dy = _SPAN * math.cos(angle), _SPAN * math.sin(angle)  # the larger stays nearer the middle
    return (
        replace(scene, scale=large, x=x - small * dx, y=y - small * dy, rotation=around(_TURN)),
        replace(
            other,
            scale=small,
            x=x + large * dx,
            y=y + large * dy,
            rotation=around(_TURN),
            background=scene.background,
            shade=scene.shade,
            grass=(),
        ),
    )
