"""Which part of a moth a patch shows, and which statements are true of it.

Everything here comes from the geometry of the drawings: it is read in the loss and in evaluation,
never by a model.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Int8
from PIL import Image

from featcache.backbones.tiny.captions import kinds_of_statement, statement
from featcache.backbones.tiny.corpus import sample_moth
from featcache.sources.fieldguide.draw import Box
from featcache.sources.fieldguide.traits import PART_OF, PARTS, TRAITS, Moth, is_drawable

GRID = 8
"""Patches along a side of `tiny`'s input."""
BACKGROUND, MIXED = len(PARTS), len(PARTS) + 1
"""What a patch shows, beside the index of a part: next to nothing of a moth, or no one part."""
_LEAST, _MOST = 0.1, 2 / 3
"""A patch shows a part that covers this share of it, and this share of what is moth there."""
_TRACE = 0.02
"""Share of moth up to which a patch is background."""


@dataclass(frozen=True, slots=True)
class State:
    """What one kind of statement can say: values of its traits, and the part that shows them."""

    kind: str
    values: tuple[tuple[str, str], ...]
    """Pairs of a trait and its value."""
    part: str
    example: Moth
    """A moth of which it is true."""

    def write(self, rng: random.Random) -> str:
        """Word it as captions do."""
        return statement(self.kind, self.example, rng)


def part_of(trait: str, value: str) -> str:
    """Name the part that shows a value; that there are no tails is seen where they would begin."""
    return "hindwings" if (trait, value) == ("tails", "none") else PART_OF[trait]


@cache
def states() -> tuple[State, ...]:
    """List all that statements can say of a moth, kind by kind."""
    rng = random.Random("states")
    found = []
    for kind, traits in kinds_of_statement().items():
        names = [t for t in TRAITS if t in traits]
        for values in itertools.product(*(TRAITS[t] for t in names)):
            said = dict(zip(names, values, strict=True))
            example = replace(sample_moth(rng), **said)
            while not is_drawable(example):
                example = replace(sample_moth(rng), **said)
            part = part_of(names[0], values[0])
            found.append(State(kind, tuple(said.items()), part, example))
    return tuple(found)


def patch_parts(
    masks: Mapping[str, Bool[np.ndarray, "h w"]], view: Box, *, mirrored: bool = False
) -> Int8[np.ndarray, " p"]:
    """Tell for every patch of a view what it shows.

    Args:
        masks: Visible pixels of every part of the drawing.
        view: The part of the drawing that is seen, in its pixels.
        mirrored: Whether the view was mirrored after it was cut.

    Returns:
        Index in `PARTS`, `BACKGROUND` or `MIXED`, row by row.

    Example:
        >>> masks = {part: np.zeros((96, 96), bool) for part in PARTS}
        >>> masks["tails"][84:, :12] = True
        >>> shown = patch_parts(masks, (0, 0, 96, 96)).reshape(GRID, GRID)
        >>> PARTS[shown[7, 0]], int((shown == BACKGROUND).sum())
        ('tails', 63)
    """
    shares = np.stack([_shares(_own(masks, part), view) for part in PARTS])  # [parts 8 8]
    moth = shares.sum(0)
    first = shares.argmax(0)
    most = shares.max(0)
    shown = np.where((most >= _LEAST) & (most >= _MOST * moth), first, MIXED)
    shown = np.where(moth <= _TRACE, BACKGROUND, shown).astype(np.int8)
    return (shown[:, ::-1] if mirrored else shown).reshape(-1)


def truth(
    moths: Sequence[Moth], parts: Int8[np.ndarray, "n p"]
) -> tuple[Bool[np.ndarray, "n p s"], Bool[np.ndarray, "n p s"]]:
    """Compare every patch with every state.

    A state is true of the patches of its part if the moth has the values, false of other patches
    and other moths. Neither true nor false: everything about a mixed patch; the colour and mark of
    the hindwings at their tails, and tails at the hindwings that end in them.

    Args:
        moths: What each image shows.
        parts: `patch_parts` of each image.

    Returns:
        Whether each state is true, and whether it is false.
    """
    has = np.array(
        [[all(getattr(m, t) == v for t, v in s.values) for s in states()] for m in moths]
    )
    index = np.array([PARTS.index(s.part) for s in states()])
    at = parts[..., None] == index  # [n p s]
    trunk = np.array([s.kind == "body" for s in states()])
    at |= trunk & (parts == PARTS.index("abdomen"))[..., None]  # of the body's colour
    near = np.zeros_like(at)
    for here, there in (("tails", "hindwings"), ("hindwings", "tails")):
        near |= (index == PARTS.index(there)) & (parts == PARTS.index(here))[..., None]
    same = has[:, None]
    undecided = (parts == MIXED)[..., None] | (near & same & ~at)
    return at & same, ~(at & same) & ~undecided


def _own(masks: Mapping[str, Bool[np.ndarray, "h w"]], part: str) -> Bool[np.ndarray, "h w"]:
    """Leave the abdomen, a part of its own, out of the body."""
    return masks["body"] & ~masks["abdomen"] if part == "body" else masks[part]


def _shares(mask: Bool[np.ndarray, "h w"], view: Box) -> np.ndarray:
    if not mask.any():
        return np.zeros((GRID, GRID), np.float32)
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX, box=view))
