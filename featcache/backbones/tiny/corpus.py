"""Training data: drawings of moths that no fieldguide world contains, as whole views and as crops.

A batch depends on the step number and the seed only, so that a resumed run sees the same batches as
an uninterrupted one. Every drawing gives one whole view and one crop around a part. Labels that say
which caption is true of which image come from the drawing and are used in the loss only.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from featcache.backbones.tiny.captions import Caption, caption
from featcache.backbones.tiny.tokenizer import TinyTokenizer
from featcache.sources.fieldguide.draw import Box, Drawing, draw, sample_scene
from featcache.sources.fieldguide.species import is_held_out
from featcache.sources.fieldguide.traits import PART_OF, TRAITS, Moth, is_drawable

SIZE = 96
"""Side of a training image in pixels."""
_DRAWN = 128
"""Side of a drawing in pixels."""
_SEEN, _HIDDEN = 0.5, 0.12
"""Shares of a part's box that lie in a view: at the first or more the part counts as visible, below
the second as hidden."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images, captions, and which caption is true of which image."""

    pixels: UInt8[Tensor, "n 3 96 96"]
    tokens: Int[Tensor, "m length"]
    true: Bool[Tensor, "m n"]
    """The caption is true of the image, and the parts it states are visible."""
    false: Bool[Tensor, "m n"]
    """The caption is false, or a part it states is hidden; a pair may be neither true nor false."""


def sample_moth(rng: random.Random) -> Moth:
    """Sample a moth that differs from every species of every world in two traits or more."""
    while True:
        moth = Moth(**{t: values[int(rng.random() * len(values))] for t, values in TRAITS.items()})
        if is_drawable(moth) and not is_held_out(moth):
            return moth


def visibility(moth: Moth, boxes: dict[str, Box], view: Box) -> dict[str, float]:
    """Return for every trait the share of its part's box inside a view, in [0, 1]."""
    shares = {}
    for trait, part in PART_OF.items():
        # The absence of tails is seen at the hindwings, where they would begin.
        part = "hindwings" if trait == "tails" and moth.tails == "none" else part
        shares[trait] = _overlap(boxes[part], view) if part in boxes else 0.0
    return shares


@dataclass(frozen=True, slots=True)
class View:
    """A part of a drawing as the model sees it, and a caption."""

    pixels: UInt8[np.ndarray, "96 96 3"]
    moth: Moth
    drawing: Drawing
    box: Box
    """Which part of the drawing, in its pixels."""
    mirrored: bool
    shares: dict[str, float]
    """`visibility` of every trait."""
    caption: Caption


class Corpus(Dataset[Batch]):
    """Batches by step number."""

    stream = "tiny"
    """Seeds of two streams share no drawing."""
    masks = False
    """Whether the drawings come with masks of their parts."""

    def __init__(self, *, steps: int, batch: int, seed: int, tokenizer: TinyTokenizer) -> None:
        """Store the settings; images are drawn on access.

        Args:
            steps: Number of batches.
            batch: Images per batch, an even number.
            seed: Seed of all batches.
            tokenizer: Encodes the captions.
        """
        self.steps, self.batch, self.seed, self.tokenizer = steps, batch, seed, tokenizer

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.collate(self.views(self.generator(step)))

    def generator(self, step: int) -> random.Random:
        """Return the generator of one batch."""
        return random.Random(f"{self.stream}/{self.seed}/{step}")

    def views(self, rng: random.Random) -> list[View]:
        """Draw the views of one batch: a whole one and a crop of every drawing."""
        views: list[View] = []
        while len(views) < self.batch:
            moth = sample_moth(rng)
            drawing = draw(moth, sample_scene(rng), size=_DRAWN, masks=self.masks)
            image = Image.fromarray(drawing.pixels)
            for box in (_whole(rng), _crop(drawing.boxes, rng)):
                shares = visibility(moth, drawing.boxes, box)
                words = caption(moth, [t for t, s in shares.items() if s >= _SEEN], rng)
                mirrored = rng.random() < 0.5
                pixels = _render(image, box, mirrored, rng)
                views.append(View(pixels, moth, drawing, box, mirrored, shares, words))
        return views

    def collate(self, views: Sequence[View]) -> Batch:
        """Join views into a batch."""
        traits = np.array([trait_indices(v.moth) for v in views], np.int8)
        shares = np.array([[v.shares[t] for t in TRAITS] for v in views], np.float32)
        stated = np.array([[t in v.caption.traits for t in TRAITS] for v in views])
        true, false = _truth(traits, shares, stated)
        pixels = torch.from_numpy(np.stack([v.pixels for v in views])).permute(0, 3, 1, 2)
        tokens = self.tokenizer([v.caption.text for v in views])
        return Batch(pixels.contiguous(), tokens, torch.from_numpy(true), torch.from_numpy(false))


def trait_indices(moth: Moth) -> list[int]:
    """Return the index of the value of every trait, in the order of `TRAITS`."""
    return [values.index(getattr(moth, t)) for t, values in TRAITS.items()]


def _truth(
    traits: Int[np.ndarray, "n t"], shares: np.ndarray, stated: Bool[np.ndarray, "m t"]
) -> tuple[Bool[np.ndarray, "m n"], Bool[np.ndarray, "m n"]]:
    """Compare caption m with image n for all pairs; caption i was written for image i.

    Args:
        traits: Index of the value of every trait of the moth in an image.
        shares: `visibility` of every trait in an image.
        stated: Whether a caption states the trait.

    Returns:
        `Batch.true` and `Batch.false`.
    """
    same = traits[:, None] == traits[None]  # [m n t]
    seen, hidden = (shares >= _SEEN)[None], (shares < _HIDDEN)[None]  # [1 n t]
    states = stated[:, None]  # [m 1 t]
    true = (~states | (same & seen)).all(-1)
    false = (states & (hidden | (seen & ~same))).any(-1)
    # A caption that states no trait but a name is true of its own drawing, which has two adjacent
    # rows, and false of every other.
    has_traits = stated.any(-1, keepdims=True)  # [m 1]
    drawing = np.arange(len(traits)) // 2
    is_own = np.equal.outer(drawing, drawing)
    return np.where(has_traits, true, is_own), np.where(has_traits, false, ~is_own)


def _overlap(box: Box, view: Box) -> float:
    width = min(box[2], view[2]) - max(box[0], view[0])
    height = min(box[3], view[3]) - max(box[1], view[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(width, 0.0) * max(height, 0.0) / area


def _whole(rng: random.Random) -> Box:
    """Return a view of nearly the whole drawing."""
    side = _DRAWN * (1 - 0.12 * rng.random())
    x, y = ((_DRAWN - side) * rng.random() for _ in range(2))
    return (x, y, x + side, y + side)


def _crop(boxes: dict[str, Box], rng: random.Random) -> Box:
    """Return a square view around one part, with a random offset, inside the drawing."""
    names = sorted(boxes)
    x0, y0, x1, y1 = boxes[names[int(rng.random() * len(names))]]
    side = _DRAWN * (0.4 + 0.45 * rng.random())
    x, y = (
        min(max((low + high - side) / 2 + (rng.random() - 0.5) * 0.4 * side, 0.0), _DRAWN - side)
        for low, high in ((x0, x1), (y0, y1))
    )
    return (x, y, x + side, y + side)


def _render(
    image: Image.Image, view: Box, mirrored: bool, rng: random.Random
) -> UInt8[np.ndarray, "96 96 3"]:
    """Crop, resize, mirror if asked to, and jitter most; some become greyish or dark."""
    cut = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=view)
    if mirrored:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(cut, np.float32)
    if rng.random() < 0.7:
        bright, contrast = 0.75 + 0.45 * rng.random(), 0.75 + 0.45 * rng.random()
        if rng.random() < 0.15:
            bright *= 0.6
        tint = np.array([1 + 0.12 * (rng.random() - 0.5) for _ in range(3)], np.float32)
        mean = pixels.mean()
        pixels = ((pixels - mean) * contrast + mean) * (bright * tint)
        grey = 0.8 * rng.random() if rng.random() < 0.2 else 0.0
        if grey:
            pixels = pixels + grey * (pixels.mean(-1, keepdims=True) - pixels)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
