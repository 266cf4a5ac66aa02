"""Training data with places: `tiny`'s drawings from another stream, and what every patch shows."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Int8
from torch import Tensor

from featcache.backbones.tiny.corpus import Batch, Corpus
from featcache.backbones.tiny_local.parts import BACKGROUND, patch_parts, states, truth

_ROWS, _EMPTY = 96, 384
"""Patches taken of a batch: at most so many of each part, and of the background."""


@dataclass(frozen=True, slots=True)
class LocalBatch(Batch):
    """A batch, one sentence for every state, and which of them is true of which patch."""

    sentences: Int[Tensor, "s length"]
    rows: Int[Tensor, " r"]
    """Patches that are used, as indices into all p patches of all n images."""
    parts: Int8[Tensor, " r"]
    """`patch_parts` of each of them."""
    told: Bool[Tensor, "r s"]
    """The sentence is true of the patch."""
    denied: Bool[Tensor, "r s"]
    """The sentence is false of the patch; a pair may be neither true nor false."""


class LocalCorpus(Corpus):
    """Batches by step number."""

    stream = "tiny-local"
    masks = True

    def __getitem__(self, step: int) -> LocalBatch:
        rng = self.generator(step)
        views = self.views(rng)
        whole = self.collate(views)
        parts = np.stack(
            [patch_parts(v.drawing.masks or {}, v.box, mirrored=v.mirrored) for v in views]
        )
        told, denied = truth([v.moth for v in views], parts)
        rows = _choose(parts.reshape(-1), rng)
        return LocalBatch(
            pixels=whole.pixels,
            tokens=whole.tokens,
            true=whole.true,
            false=whole.false,
            sentences=self.tokenizer([state.write(rng) for state in states()]),
            rows=torch.from_numpy(rows),
            parts=torch.from_numpy(parts.reshape(-1)[rows]),
            told=torch.from_numpy(told.reshape(-1, told.shape[-1])[rows]),
            denied=torch.from_numpy(denied.reshape(-1, denied.shape[-1])[rows]),
        )


def _choose(parts: Int8[np.ndarray, " m"], rng: random.Random) -> Int[np.ndarray, " r"]:
    """Sample patches of every part and of the background; wings have most of them."""
    chosen: list[int] = []
    for shown in range(BACKGROUND + 1):
        there = np.flatnonzero(parts == shown).tolist()
        most = _EMPTY if shown == BACKGROUND else _ROWS
        chosen += sorted(rng.sample(there, most)) if len(there) > most else there
    return np.array(chosen, np.int64)
