"""The training stream: drawings of moths that no world contains, seen whole and in part.

Step number and seed alone fix a batch, so that a resumed run sees what an uninterrupted one would
have seen. Every drawing gives one whole view and one crop around a part; the labels that say which
caption is true of which picture come from the drawing and serve the loss only.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from featcache.backbones.tiny.captions import caption
from featcache.backbones.tiny.tokenizer import TinyTokenizer
from featcache.sources.fieldguide.draw import Box, draw, sample_scene
from featcache.sources.fieldguide.species import is_held_out
from featcache.sources.fieldguide.traits import PART_OF, TRAITS, Moth, is_drawable

SIZE = 96
"""Side of a training picture in pixels."""
_DRAWN = 128
_SEEN, _HIDDEN = 0.5, 0.12
"""A part is told from half of its box on; below the second share it counts as absent."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures, captions and which is true of which."""

    pixels: UInt8[Tensor, "n 3 96 96"]
    tokens: Int[Tensor, "m length"]
    true: Bool[Tensor, "m n"]
    """The caption holds for the picture, and what it speaks of is visible."""
    false: Bool[Tensor, "m n"]
    """The caption is wrong, or what it speaks of is out of sight; a pair may be neither."""


def sample_moth(rng: random.Random) -> Moth:
    """Draw a moth that is neither a species of any world nor one trait away from one."""
    while True:
        moth = Moth(**{t: values[int(rng.random() * len(values))] for t, values in TRAITS.items()})
        if is_drawable(moth) and not is_held_out(moth):
            return moth


def visibility(moth: Moth, boxes: dict[str, Box], view: Box) -> dict[str, float]:
    """Tell for every trait which share of its part's box a view keeps, 0..1."""
    shares = {}
    for trait, part in PART_OF.items():
        # Absent tails are told from the hindwings, where they would begin.
        part = "hindwings" if trait == "tails" and moth.tails == "none" else part
        shares[trait] = _overlap(boxes[part], view) if part in boxes else 0.0
    return shares


class Corpus(Dataset[Batch]):
    """Batches by step number."""

    def __init__(self, *, steps: int, batch: int, seed: int, tokenizer: TinyTokenizer) -> None:
        """Describe the stream; nothing is drawn yet.

        Args:
            steps: Number of batches.
            batch: Pictures in each, an even number.
            seed: Names the stream.
            tokenizer: Encodes the captions.
        """
        self.steps, self.batch, self.seed, self.tokenizer = steps, batch, seed, tokenizer

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"tiny/{self.seed}/{step}")
        views: list[np.ndarray] = []
        texts: list[str] = []
        moths = np.zeros((self.batch, len(TRAITS)), np.int8)
        shares = np.zeros((self.batch, len(TRAITS)), np.float32)
        stated = np.zeros((self.batch, len(TRAITS)), bool)
        for i in range(0, self.batch, 2):
            moth = sample_moth(rng)
            drawing = draw(moth, sample_scene(rng), size=_DRAWN)
            image = Image.fromarray(drawing.pixels)
            for j, view in ((i, _whole(rng)), (i + 1, _crop(drawing.boxes, rng))):
                share = visibility(moth, drawing.boxes, view)
                visible = [t for t, s in share.items() if s >= _SEEN]
                words = caption(moth, visible, rng)
                texts.append(words.text)
                views.append(_render(image, view, rng))
                moths[j] = [values.index(getattr(moth, t)) for t, values in TRAITS.items()]
                shares[j] = [share[t] for t in TRAITS]
                stated[j] = [t in words.traits for t in TRAITS]
        true, false = _truth(moths, shares, stated)
        pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous()
        return Batch(pixels, self.tokenizer(texts), torch.from_numpy(true), torch.from_numpy(false))


def _truth(
    moths: Int[np.ndarray, "n t"], shares: np.ndarray, stated: Bool[np.ndarray, "m t"]
) -> tuple[Bool[np.ndarray, "m n"], Bool[np.ndarray, "m n"]]:
    """Compare every caption, which speaks of the picture of its own number, with every picture."""
    same = moths[:, None] == moths[None]  # [m n t]
    seen, hidden = (shares >= _SEEN)[None], (shares < _HIDDEN)[None]  # [1 n t]
    spoken = stated[:, None]  # [m 1 t]
    true = (~spoken | (same & seen)).all(-1)
    false = (spoken & (hidden | (seen & ~same))).any(-1)
    # A mere name belongs to its own drawing, which has two neighbouring rows, and to no other.
    speaks = stated.any(-1, keepdims=True)  # [m 1]
    drawing = np.arange(len(moths)) // 2
    own = np.equal.outer(drawing, drawing)
    return np.where(speaks, true, own), np.where(speaks, false, ~own)


def _overlap(box: Box, view: Box) -> float:
    width = min(box[2], view[2]) - max(box[0], view[0])
    height = min(box[3], view[3]) - max(box[1], view[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(width, 0.0) * max(height, 0.0) / area


def _whole(rng: random.Random) -> Box:
    """Take nearly all of the frame."""
    side = _DRAWN * (1 - 0.12 * rng.random())
    x, y = ((_DRAWN - side) * rng.random() for _ in range(2))
    return (x, y, x + side, y + side)


def _crop(boxes: dict[str, Box], rng: random.Random) -> Box:
    """Take a square around the middle of one part, moved a little, kept inside the frame."""
    names = sorted(boxes)
    x0, y0, x1, y1 = boxes[names[int(rng.random() * len(names))]]
    side = _DRAWN * (0.4 + 0.45 * rng.random())
    x, y = (
        min(max((low + high - side) / 2 + (rng.random() - 0.5) * 0.4 * side, 0.0), _DRAWN - side)
        for low, high in ((x0, x1), (y0, y1))
    )
    return (x, y, x + side, y + side)


def _render(image: Image.Image, view: Box, rng: random.Random) -> UInt8[np.ndarray, "96 96 3"]:
    """Cut, resize, and vary light and colour mildly; about one in eight turns half grey or dark."""
    cut = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=view)
    if rng.random() < 0.5:
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
