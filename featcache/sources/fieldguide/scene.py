"""How a moth is seen: pose, place and light, everything that is not the moth itself.

Drawing a scene reads `rng.random()` only, the one stream Python promises never to change, so a
seed names the same scene on every machine and version.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")

BACKGROUNDS: tuple[str, ...] = ("sky", "leaf", "sand", "bark", "stone")
"""What a moth can rest on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One way of looking at a moth."""

    x: float = 0.0
    """Offset of the moth's centre to the right, in frame widths."""
    y: float = 0.0
    """Offset downwards, in frame heights."""
    scale: float = 0.95
    """Size of the moth; at 1 its wings span nearly the whole frame."""
    rotation: float = 0.0
    """Clockwise, in degrees."""
    fore: tuple[float, float] = (0.0, 0.0)
    """How far the left and right forewings are lowered, in degrees."""
    hind: tuple[float, float] = (0.0, 0.0)
    """How far the left and right hindwings are lowered, in degrees."""
    antennae: tuple[float, float] = (0.0, 0.0)
    """How far the left and right antennae are lowered, in degrees."""
    foreshortening: tuple[float, float] = (1.0, 1.0)
    """Apparent width of the left and right wings, 1 seen from straight above."""
    background: str = "sand"
    """One of `BACKGROUNDS`."""
    shade: tuple[int, int, int] = (0, 0, 0)
    """Added to the background's red, green and blue."""
    bleach: tuple[int, int, int] = (0, 0, 0)
    """Added to the colours of forewings, hindwings and body: fresh or worn."""
    texture: int = 0
    """Seed of the background's grain, clouds, veins and cracks, below 2**31."""
    light: int = 0
    """Where light comes from, 0..7 in eighths of a turn."""
    shadow: float = 0.0
    """Depth of the unlit side, 0..1."""
    tint: tuple[int, int, int] = (255, 244, 214)
    """Colour of the light."""
    glow: float = 0.0
    """Weight of that colour, 0..1."""
    blur: float = 0.0
    """Radius of the blur, in hundredths of the frame."""
    grass: tuple[tuple[float, float, float], ...] = ()
    """Blades before the moth: foot, tip (along the frame's width) and height, 0..1."""


_TINTS = ((255, 244, 214), (255, 226, 180), (226, 238, 255), (255, 255, 255))


def sample_scene(rng: random.Random) -> Scene:
    """Draw a scene; only `rng.random()` is called."""

    def around(spread: float) -> float:
        return (rng.random() * 2 - 1) * spread

    def pick(values: Sequence[_T]) -> _T:
        return values[int(rng.random() * len(values))]

    def level(spread: float) -> int:
        return int(around(spread))

    lowered, opened = around(9.0), around(7.0)
    turned = 1 - rng.random() * 0.22
    flat_side = rng.random() < 0.5
    drift = level(14.0)
    return Scene(
        x=around(0.07),
        y=around(0.07),
        scale=0.78 + rng.random() * 0.22,
        rotation=around(35.0),
        fore=(lowered + around(4.0), lowered + around(4.0)),
        hind=(opened + around(4.0), opened + around(4.0)),
        antennae=(around(9.0), around(9.0)),
        foreshortening=(1.0, turned) if flat_side else (turned, 1.0),
        background=pick(BACKGROUNDS),
        shade=(drift + level(22.0), drift + level(22.0), drift + level(22.0)),
        bleach=(level(15.0), level(15.0), level(15.0)),
        texture=int(rng.random() * 2**31),
        light=int(rng.random() * 8),
        shadow=rng.random() * 0.34,
        tint=pick(_TINTS),
        glow=rng.random() * 0.14,
        blur=rng.random() * 0.75 if rng.random() < 0.3 else 0.0,
        grass=tuple(
            (rng.random(), rng.random(), 0.25 + 0.5 * rng.random())
            for _ in range(max(0, int(rng.random() * 5) - 2))
        ),
    )
