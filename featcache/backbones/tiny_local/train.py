"""Train `tiny` further, so that its patches match sentences about the part that they show.

    L = L_tiny + (L_vanilla + L_clearclip) / 2                                             (1)
    L_v = (mean over parts a of R(S_v; patches of a) + R(S_v^T; sentences)) / 2             (2)

L_tiny is the loss of whole views and crops that `tiny` was trained with; R is the same term, (1) of
`tiny/train.py`, over rows: each positive against the negatives of its row. S_v holds the cosines of
patches in variant v with one sentence for every state of every trait, times the logit scale. The
drawings tell which sentence is true of which patch. Every part counts equally, however many patches
show it.

Source: our reconstruction. FILIP (Yao et al., ICLR 2022, arXiv:2111.07783) matches tokens without
labels; here the places of the parts are known.

Run: python -m featcache.backbones.tiny_local.train --out DIR [--images N] [--resume]
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int8
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from featcache.backbones.patches.vit import vit_features
from featcache.backbones.tiny import train as base
from featcache.backbones.tiny.train import CONFIG, contrastive_loss
from featcache.backbones.tiny_local.corpus import LocalBatch, LocalCorpus
from featcache.backbones.tiny_local.evaluate import held_out, scores
from featcache.sources.fieldguide.traits import PARTS

VARIANTS = ("vanilla", "clearclip")
"""Patch variants that are trained; both are read from the same weights."""
_CHECKED = 256
"""Drawings by which the weights are chosen."""


@dataclass(frozen=True, kw_only=True)
class Settings(base.Settings):
    """All settings of a run; those of `tiny` apply where none is given here."""

    images: int = 57_600
    seed: int = 1
    lr: float = 1e-3
    warmup: int = 50
    every: int = 75
    """Steps between two checks of the part accuracy; the best weights are kept."""


def local_loss(
    logits: Float[Tensor, "r s"],
    parts: Int8[Tensor, " r"],
    told: Bool[Tensor, "r s"],
    denied: Bool[Tensor, "r s"],
) -> Float[Tensor, ""]:
    """Evaluate (2)."""
    chosen = [parts == part for part in range(len(PARTS)) if (parts == part).any()]
    terms = [contrastive_loss(logits[c], told[c], denied[c]) for c in chosen]
    by_patch = torch.stack(terms).mean() if terms else logits.sum() * 0
    return (by_patch + contrastive_loss(logits.T, told.T, denied.T)) / 2


class Trainer(base.Trainer):
    """A model that starts as `tiny`, its optimiser, and the best weights so far."""

    settings_type = Settings
    corpus_type = LocalCorpus

    def __init__(self, settings: Settings) -> None:
        """Load the weights of `tiny`; the seed draws the images."""
        super().__init__(settings)
        self.settings: Settings = settings
        self.model.load_state_dict(load_file(CONFIG.with_name("weights.safetensors")), strict=True)
        self.best: dict[str, Any] = {"score": -1.0, "step": 0, "model": {}}
        self.drawings = held_out("choice", _CHECKED)

    def loss(self, batch: LocalBatch) -> Float[Tensor, ""]:  # type: ignore[override]
        """Evaluate (1)."""
        model: Any = self.model
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                encoded = model.encode_text(torch.cat([batch.tokens, batch.sentences])).float()
            pixels = self.normalised(batch.pixels)
            images, patches = vit_features(model.visual, pixels, VARIANTS, torch.bfloat16)
        texts, sentences = encoded.split([len(batch.tokens), len(batch.sentences)])
        loss = self.matched(images, texts, batch)
        said = self.scale.exp() * F.normalize(sentences, dim=-1)
        for found in patches.values():
            rows = found.flatten(0, 1)[batch.rows]
            logits = F.normalize(rows, dim=-1) @ said.T  # [r s]
            local = local_loss(logits, batch.parts, batch.told, batch.denied)
            loss = loss + local / len(patches)
        return loss

    def check(self) -> dict[str, Any]:
        """Measure held-out drawings at intervals and keep the best weights."""
        if self.done % self.settings.every and self.done != self.settings.steps:
            return {}
        found = self.measured()
        score = sum(v["part"] + v["statement"] for v in found.values()) / (2 * len(found))
        if score > self.best["score"]:
            weights = copy.deepcopy(self.model.state_dict())
            self.best = {"score": score, "step": self.done, "model": weights}
        return {"score": round(score, 4), **found}

    @torch.no_grad()
    def measured(self) -> dict[str, dict[str, float]]:
        """Score the patches of held-out drawings, variant by variant."""
        model: Any = self.model
        tokenizer = self.corpus().tokenizer
        pixels = self.normalised(self.drawings.pixels)
        _, patches = vit_features(model.visual, pixels, VARIANTS, torch.float32)
        return {
            name: scores(
                rows, self.drawings, lambda texts: model.encode_text(tokenizer(list(texts)))
            )
            for name, rows in patches.items()
        }

    def weights(self) -> dict[str, Tensor]:
        """Return the best weights so far."""
        return self.best["model"] or super().weights()

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {**super().state(), "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().restore(state)
        self.best = state["best"]


if __name__ == "__main__":
    base.main(kind=Trainer, program="featcache.backbones.tiny_local.train")
