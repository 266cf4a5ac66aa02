"""How often a patch is nearest to the words of the part that it shows.

Drawings are held out: their moths differ from every species of every world, and their seeds from
those of training. A patch counts if it shows one part (`parts.patch_parts`).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int8, UInt8
from PIL import Image
from torch import Tensor

from featcache.backbones.tiny.captions import all_statements
from featcache.backbones.tiny.corpus import SIZE, sample_moth
from featcache.backbones.tiny_local.parts import patch_parts, states, truth
from featcache.sources.fieldguide.draw import Drawing, draw, sample_scene
from featcache.sources.fieldguide.traits import PARTS, Moth

Encode = Callable[[Sequence[str]], Float[Tensor, "m d"]]
"""Sentences -> features, of any length."""


@dataclass(frozen=True, slots=True)
class Drawings:
    """Whole views, what every patch shows and which state is true of it."""

    pixels: UInt8[Tensor, "n 3 96 96"]
    parts: Int8[Tensor, "n p"]
    told: Bool[Tensor, "n p s"]


def held_out(name: str, number: int) -> Drawings:
    """Draw moths that no training run saw, as whole views without jitter.

    Args:
        name: Seed of the drawings.
        number: How many.

    Example:
        >>> drawings = held_out("example", 2)
        >>> drawings.pixels.shape, drawings.parts.shape
        (torch.Size([2, 3, 96, 96]), torch.Size([2, 64]))
    """
    rng = random.Random(f"tiny-local/held out/{name}")
    moths = [sample_moth(rng) for _ in range(number)]
    return seen_whole(moths, [draw(m, sample_scene(rng), masks=True) for m in moths])


def seen_whole(moths: Sequence[Moth], drawings: Sequence[Drawing]) -> Drawings:
    """See whole drawings as the model does, with the truth about their patches."""
    pixels, parts = [], []
    for drawing in drawings:
        image = Image.fromarray(drawing.pixels)
        small = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels.append(np.asarray(small))
        whole = (0.0, 0.0, float(image.width), float(image.height))
        parts.append(patch_parts(drawing.masks or {}, whole))
    shown = np.stack(parts)
    told, _ = truth(moths, shown)
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Drawings(stacked, torch.from_numpy(shown), torch.from_numpy(told))


def scores(patches: Float[Tensor, "n p d"], drawings: Drawings, encode: Encode) -> dict[str, float]:
    """Score patches against words; each figure is the mean over parts of the share of patches.

    Args:
        patches: Patches of each drawing, of any length.
        drawings: The drawings.
        encode: Encodes sentences.

    Returns:
        part: The nearest of the mean sentences about each part, over all states and wordings, is
        that of the part; chance is 1 in 6. word: the same with the part's name alone. statement:
        the nearest of the mean sentences about each state is true; `chance` is the share of states
        that are.
    """
    shown = drawings.parts.long()
    used = shown < len(PARTS)
    rows, shown = F.normalize(patches[used].float(), dim=-1), shown[used]
    told = drawings.told[used]
    about = [(s.part, _mean(encode(all_statements(s.kind, s.example)))) for s in states()]
    of_parts = torch.stack([_mean(torch.stack([t for p, t in about if p == q])) for q in PARTS])
    of_states = torch.stack([t for _, t in about])
    words = F.normalize(encode([f"{part}." for part in PARTS]), dim=-1)
    nearest = (rows @ of_states.T).argmax(1, keepdim=True)
    right = {
        "part": (rows @ of_parts.T).argmax(1) == shown,
        "word": (rows @ words.T).argmax(1) == shown,
        "statement": told.gather(1, nearest)[:, 0],
        "chance": told.float().mean(1),
    }
    return {name: _by_part(values.float(), shown) for name, values in right.items()}


def _mean(rows: Float[Tensor, "m d"]) -> Float[Tensor, " d"]:
    return F.normalize(F.normalize(rows, dim=-1).mean(0), dim=-1)


def _by_part(values: Float[Tensor, " r"], shown: Tensor) -> float:
    means = [values[shown == part].mean() for part in range(len(PARTS)) if (shown == part).any()]
    return round(torch.stack(means).mean().item(), 4)
