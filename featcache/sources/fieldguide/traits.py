"""What a moth of the drawn world can look like: the visible traits and the parts that carry them.

One table serves three readers: `draw` paints these values, `species` picks fixed combinations of
them, and the training captions of the `tiny` backbone speak about them. Colours are limited to
hues that stay apart after JPEG and in small pictures.
"""

from dataclasses import dataclass, fields

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (244, 242, 236),
    "red": (206, 38, 44),
    "orange": (240, 140, 36),
    "yellow": (248, 214, 60),
    "green": (58, 146, 66),
    "blue": (44, 84, 190),
    "purple": (126, 58, 164),
    "pink": (244, 138, 166),
    "brown": (124, 76, 44),
    "grey": (150, 150, 154),
    "black": (34, 32, 38),
}
"""Name -> sRGB, 0..255."""

_WINGS = ("white", "red", "orange", "yellow", "green", "blue", "purple", "brown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moth:
    """Everything that can be seen of one kind of moth; pose, light and background are not here."""

    forewing: str
    """Ground colour of the forewings."""
    pattern: str
    """Shape of the marking on the forewings."""
    pattern_colour: str
    """Colour of that marking; never the forewing's own."""
    hindwing: str
    """Ground colour of the hindwings."""
    hindwing_mark: str
    """What the hindwings carry: nothing, one round dot each, or a pale fringe."""
    body: str
    """Colour of thorax and abdomen."""
    rings: str
    """Colour of the rings on the abdomen, or none."""
    antennae: str
    """Form of the antennae."""
    tails: str
    """Whether the hindwings end in long tails."""


TRAITS: dict[str, tuple[str, ...]] = {
    "forewing": _WINGS,
    "pattern": ("stripes", "spots", "eyespot", "chevrons", "border", "tips"),
    "pattern_colour": ("white", "black", "red", "yellow", "pink", "blue"),
    "hindwing": _WINGS,
    "hindwing_mark": ("none", "dot", "fringe"),
    "body": ("white", "red", "orange", "green", "brown", "grey", "black"),
    "rings": ("none", "black", "white", "yellow"),
    "antennae": ("clubbed", "feathered", "curled"),
    "tails": ("none", "long"),
}
"""Trait -> its values, in the order of `Moth`'s fields."""

PARTS: tuple[str, ...] = ("forewings", "hindwings", "body", "abdomen", "antennae", "tails")
"""Parts with a mask each; `tails` is empty for a moth without them."""

PART_OF: dict[str, str] = {
    "forewing": "forewings",
    "pattern": "forewings",
    "pattern_colour": "forewings",
    "hindwing": "hindwings",
    "hindwing_mark": "hindwings",
    "body": "body",
    "rings": "abdomen",
    "antennae": "antennae",
    "tails": "tails",
}
"""Trait -> the part one has to see to tell it."""


def is_drawable(moth: Moth) -> bool:
    """Tell whether every trait has a known value and every marking can be told from its ground."""
    known = all(getattr(moth, f.name) in TRAITS[f.name] for f in fields(moth))
    return known and moth.pattern_colour != moth.forewing and moth.rings != moth.body


def distance(a: Moth, b: Moth) -> int:
    """Count the traits in which two moths differ, 0..9."""
    return sum(getattr(a, f.name) != getattr(b, f.name) for f in fields(a))
