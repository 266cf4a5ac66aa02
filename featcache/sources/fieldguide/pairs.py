"""Two moths in a picture: the label's, and a smaller one of another species beside it.

A window of such a picture may show the other species alone. The moths lie on opposite sides of the
middle, in one light, the label's above.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from featcache.sources.fieldguide.draw import Drawing, draw, sample_scene
from featcache.sources.fieldguide.scene import Scene
from featcache.sources.fieldguide.species import Species

_TURN = 50.0
"""Most degrees that either is turned."""
_SPAN = 0.45
"""Distance of the two, in frame widths for each unit of their scales: they seldom touch."""
_DRIFT = 0.04
"""How far both are moved together, in frame widths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """How the two moths of a picture are seen."""

    large: Scene
    """The label's."""
    small: Scene
    other: int
    """Index of the smaller one's species."""


def sample_pair(classes: int, label: int, rng: random.Random) -> Pair:
    """Draw how a picture is arranged; only `rng.random()` is called.

    Args:
        classes: Number of species.
        label: Index of the larger moth's.
        rng: Seeds the picture.
    """
    scene, other = sample_scene(rng), sample_scene(rng)
    index = (label + 1 + int(rng.random() * (classes - 1))) % classes

    def around(spread: float) -> float:
        return (rng.random() * 2 - 1) * spread

    large = 0.5 + 0.15 * rng.random()
    small = large * (0.5 + 0.25 * rng.random())
    angle = 2 * math.pi * rng.random()
    x, y = around(_DRIFT), around(_DRIFT)
    dx, dy = _SPAN * math.cos(angle), _SPAN * math.sin(angle)  # the larger stays nearer the middle
    above = replace(scene, scale=large, x=x - small * dx, y=y - small * dy, rotation=around(_TURN))
    below = replace(
        other,
        scale=small,
        x=x + large * dx,
        y=y + large * dy,
        rotation=around(_TURN),
        background=scene.background,
        shade=scene.shade,
        grass=(),
    )
    return Pair(large=above, small=below, other=index)


def draw_pair(
    kinds: Sequence[Species], label: int, rng: random.Random, *, size: int, masks: bool
) -> Drawing:
    """Draw the species `label` and one other; boxes and masks are those of the label's.

    Args:
        kinds: All species.
        label: Index of the larger moth's.
        rng: Only `rng.random()` is called.
        size: Side of the picture in pixels.
        masks: Also find the pixels of every part.
    """
    pair = sample_pair(len(kinds), label, rng)
    under = [(kinds[pair.other].moth, pair.small)]
    return draw(kinds[label].moth, pair.large, size=size, masks=masks, under=under)
