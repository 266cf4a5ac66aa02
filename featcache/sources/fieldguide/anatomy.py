"""The moth's parts as polygons, before any pose: which shape, in which colour, in what order.

Wings are maps from (u, v) to the plane, u running from the root to the outer edge and v from the
leading to the trailing edge; markings are polygons in (u, v), so they never leave their wing.
One unit is half the wing span, x runs to the right wing tip, y down to the tail.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from featcache.sources.fieldguide.traits import Moth

Point = tuple[float, float]

GROUPS: tuple[str, ...] = ("fore", "hind", "antenna", "trunk")
"""What moves as one; all but the trunk are mirrored to the left."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """One polygon or one line."""

    group: str
    part: str
    """The part it belongs to, or nothing for a line on top of parts."""
    role: str
    """Which of the moth's colours it takes."""
    start: int
    """First coordinate in the group's flat list."""
    stop: int
    width: float
    """Width of a line, in units; 0 for a filled polygon."""


@dataclass(slots=True)
class Anatomy:
    """Strokes in painting order, and the coordinates that they refer to."""

    strokes: list[Stroke] = field(default_factory=list)
    points: dict[str, list[Point]] = field(default_factory=lambda: {g: [] for g in GROUPS})
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """The same points, `[points 2]`, once complete."""

    def fill(self, group: str, part: str, role: str, outline: Iterable[Point]) -> None:
        """Add a filled polygon."""
        self._add(group, part, role, outline, 0.0)

    def line(
        self, group: str, part: str, role: str, path: Iterable[Point], width: float = 0.03
    ) -> None:
        """Add a line."""
        self._add(group, part, role, path, width)

    def _add(self, group: str, part: str, role: str, path: Iterable[Point], width: float) -> None:
        points = self.points[group]
        start = 2 * len(points)
        points.extend(path)
        self.strokes.append(Stroke(group, part, role, start, 2 * len(points), width))


def _bezier(a: Point, b: Point, c: Point, t: float) -> Point:
    s = 1 - t
    return (
        s * s * a[0] + 2 * s * t * b[0] + t * t * c[0],
        s * s * a[1] + 2 * s * t * b[1] + t * t * c[1],
    )


@dataclass(frozen=True, slots=True)
class _Wing:
    lead: tuple[Point, Point, Point]
    trail: tuple[Point, Point, Point]
    bulge: Point

    def at(self, u: float, v: float) -> Point:
        ax, ay = _bezier(*self.lead, u)
        bx, by = _bezier(*self.trail, u)
        w = (4 * v * (1 - v)) ** 0.75 * u**3
        return (ax + (bx - ax) * v + w * self.bulge[0], ay + (by - ay) * v + w * self.bulge[1])

    def outline(self) -> list[Point]:
        lead = [self.at(i / 7, 0.0) for i in range(8)]
        edge = [self.at(1.0, i / 12) for i in range(1, 12)]
        trail = [self.at(i / 7, 1.0) for i in range(7, -1, -1)]
        return [*lead, *edge, *trail]

    def band(self, low: Callable[[float], float], high: Callable[[float], float]) -> list[Point]:
        """The stretch between two u, each a function of v."""
        steps = [i / 8 for i in range(9)]
        return [self.at(low(v), v) for v in steps] + [self.at(high(v), v) for v in reversed(steps)]


_FORE = _Wing(
    ((0.03, -0.27), (0.36, -0.78), (0.97, -0.80)),
    ((0.03, 0.02), (0.42, 0.16), (0.84, 0.03)),
    (0.12, 0.02),
)
_HIND = _Wing(
    ((0.03, -0.04), (0.42, -0.10), (0.76, 0.08)),
    ((0.03, 0.28), (0.06, 0.66), (0.26, 0.80)),
    (0.20, 0.17),
)


def _disc(centre: Point, radius: float, steps: int = 14) -> list[Point]:
    turn = 2 * math.pi / steps
    return [
        (centre[0] + radius * math.cos(i * turn), centre[1] + radius * math.sin(i * turn))
        for i in range(steps)
    ]


_SPOTS = ((0.46, 0.5), (0.62, 0.24), (0.65, 0.74), (0.84, 0.2), (0.83, 0.5), (0.86, 0.8))


def _forewing_pattern(to: Anatomy, pattern: str) -> None:
    def add(outline: Iterable[Point], role: str = "pattern") -> None:
        to.fill("fore", "forewings", role, outline)

    if pattern == "stripes":
        for u in (0.30, 0.53, 0.76):
            add(_FORE.band(lambda v, u=u: u, lambda v, u=u: u + 0.125))  # type: ignore[misc]
    elif pattern == "chevrons":
        for u in (0.26, 0.50, 0.74):
            add(
                _FORE.band(
                    lambda v, u=u: u + 0.25 - 0.5 * abs(v - 0.5),  # type: ignore[misc]
                    lambda v, u=u: min(1.0, u + 0.37 - 0.5 * abs(v - 0.5)),  # type: ignore[misc]
                )
            )
    elif pattern == "spots":
        for u, v in _SPOTS:
            add(_disc(_FORE.at(u, v), 0.074, 10))
    elif pattern == "eyespot":
        eye = _FORE.at(0.68, 0.47)
        for radius, role in ((0.24, "ink"), (0.215, "pattern"), (0.13, "eye"), (0.055, "pupil")):
            add(_disc(eye, radius, 18), role)
    elif pattern == "border":
        inner = [_FORE.at(0.14 + 0.71 * i / 7, 0.17) for i in range(8)]
        inner += [_FORE.at(0.85, 0.17 + 0.66 * i / 6) for i in range(1, 7)]
        inner += [_FORE.at(0.85 - 0.71 * i / 7, 0.83) for i in range(1, 8)]
        add(_FORE.outline())
        add(inner, "forewing")
    elif pattern == "tips":
        add(_FORE.band(lambda v: 0.58 + 0.16 * v, lambda v: 1.0))


def _hindwing_mark(to: Anatomy, mark: str) -> None:
    if mark == "dot":
        to.fill("hind", "hindwings", "dot", _disc(_HIND.at(0.72, 0.48), 0.125))
    elif mark == "fringe":
        to.fill("hind", "hindwings", "fringe", _HIND.band(lambda v: 0.82, lambda v: 1.0))
        for i in range(1, 10):
            v = i / 10
            to.line("hind", "", "ink", (_HIND.at(0.82, v), _HIND.at(1.0, v)), 0.03)
        to.line("hind", "", "ink", [_HIND.at(0.82, i / 8) for i in range(9)], 0.02)


def _tail(to: Anatomy) -> None:
    shape = [
        _HIND.at(0.92, 0.76), (0.50, 1.00), (0.54, 1.14), (0.60, 1.24), (0.58, 1.36), (0.48, 1.38),
        (0.42, 1.28), (0.42, 1.14), (0.37, 0.98), _HIND.at(0.92, 0.98),
    ]  # fmt: skip
    to.fill("hind", "tails", "hindwing", shape)
    to.line("hind", "tails", "hind_line", shape)


def _antenna(to: Anatomy, form: str) -> None:
    root = (0.05, -0.40)
    if form == "clubbed":
        path = [_bezier(root, (0.10, -0.72), (0.34, -0.92), i / 6) for i in range(7)]
        to.line("antenna", "antennae", "body_line", path, 0.05)
        to.fill("antenna", "antennae", "body_line", _disc((0.37, -0.94), 0.115, 12))
        to.fill("antenna", "antennae", "club", _disc((0.37, -0.94), 0.075, 10))
    elif form == "feathered":
        path = [_bezier(root, (0.12, -0.74), (0.42, -0.96), i / 9) for i in range(10)]
        comb: list[Point] = []
        for i, (px, py) in enumerate(path[1:], start=1):
            dx, dy = px - path[i - 1][0], py - path[i - 1][1]
            norm = math.hypot(dx, dy)
            nx, ny = -dy / norm, dx / norm
            long = 0.15 * math.sin(math.pi * (0.12 + 0.8 * i / 9)) + 0.02
            ahead = 0.45 * long
            for side in (-1, 1):
                tip = (
                    px + side * nx * long + dx / norm * ahead,
                    py + side * ny * long + dy / norm * ahead,
                )
                comb += [(px, py), tip]
            comb.append((px, py))
        to.line("antenna", "antennae", "body_line", comb, 0.032)
        to.line("antenna", "antennae", "body_line", path, 0.05)
    else:
        path = [_bezier(root, (0.06, -0.62), (0.20, -0.76), i / 5) for i in range(6)]
        centre, first = (0.305, -0.80), 2.75
        for i in range(1, 17):
            angle, radius = first + i * 0.52, 0.135 - 0.0052 * i
            path.append(
                (centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle))
            )
        to.line("antenna", "antennae", "body_line", path, 0.046)


_ABDOMEN_TOP, _ABDOMEN_LENGTH = 0.02, 0.80


def _half_width(t: float) -> float:
    """Return half the width of the abdomen at t, from its top to its end."""
    return 0.145 * math.pow(math.sin(math.pi * (0.22 + 0.75 * t)), 0.7)


def _trunk(to: Anatomy, rings: bool) -> None:
    def edge(t: float, side: int) -> Point:
        return (side * _half_width(t), _ABDOMEN_TOP + _ABDOMEN_LENGTH * t)

    steps = [i / 9 for i in range(10)]
    outline = [edge(t, 1) for t in steps] + [edge(t, -1) for t in reversed(steps)]
    to.fill("trunk", "abdomen", "body", outline)
    if rings:
        for t in (0.25, 0.49, 0.73):
            low, high = t, t + 0.125
            ring = [edge(low, -1), edge(low, 1), edge(high, 1), edge(high, -1)]
            to.fill("trunk", "abdomen", "rings", ring)
            to.line("trunk", "abdomen", "ink", ring[:2], 0.014)
            to.line("trunk", "abdomen", "ink", ring[2:], 0.014)
    to.line("trunk", "abdomen", "body_line", [*outline, outline[0]])
    thorax = [(0.165 * x, 0.21 * y - 0.12) for x, y in _disc((0.0, 0.0), 1.0, 16)]
    to.fill("trunk", "body", "body", thorax)
    to.line("trunk", "body", "body_line", [*thorax, thorax[0]])
    head = _disc((0.0, -0.36), 0.105, 12)
    to.fill("trunk", "body", "body", head)
    to.line("trunk", "body", "body_line", [*head, head[0]])
    for side in (-1, 1):
        to.fill("trunk", "body", "ink", _disc((side * 0.075, -0.385), 0.035, 7))


@functools.cache
def _anatomy(pattern: str, mark: str, tails: bool, antennae: str, rings: bool) -> Anatomy:
    made = Anatomy()
    _antenna(made, antennae)
    if tails:
        _tail(made)
    hind, fore = _HIND.outline(), _FORE.outline()
    made.fill("hind", "hindwings", "hindwing", hind)
    for v in (0.22, 0.5, 0.78):
        made.line("hind", "", "hind_vein", (_HIND.at(0.2, v), _HIND.at(0.97, v)), 0.012)
    _hindwing_mark(made, mark)
    made.line("hind", "", "hind_line", [*hind, hind[0]])
    made.fill("fore", "forewings", "forewing", fore)
    for v in (0.25, 0.5, 0.75):
        made.line("fore", "", "fore_vein", (_FORE.at(0.12, v), _FORE.at(0.98, v)), 0.012)
    _forewing_pattern(made, pattern)
    made.line("fore", "", "fore_line", [*fore, fore[0]])
    _trunk(made, rings)
    made.arrays = {g: np.array(p, dtype=np.float64).reshape(-1, 2) for g, p in made.points.items()}
    return made


def anatomy(moth: Moth) -> Anatomy:
    """Lay out a moth's shapes; colours are named by role only."""
    return _anatomy(
        moth.pattern, moth.hindwing_mark, moth.tails != "none", moth.antennae, moth.rings != "none"
    )
