"""Weights of a frozen tower in a narrower type, converted once instead of in every batch."""

from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import QuickGELU

from featcache.backbones.patches.vit import is_plain_vit
from featcache.last_block import QUICK_GELU


def lower_weights(visual: Any, dtype: torch.dtype) -> None:
    """Convert the weights of convolutions and linear layers to `dtype` once, not in every batch.

    Norms, position embeddings and the last projection stay float32.
    """
    for block in visual.transformer.resblocks if is_plain_vit(visual) else ():
        _fold_quick_gelu(block.mlp)
    keep = visual.attnpool.c_proj if isinstance(visual, ModifiedResNet) else None
    for module in visual.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module is not keep:
            module.to(dtype)
        for name in ("in_proj_weight", "in_proj_bias"):
            parameter = getattr(module, name, None)
            if isinstance(parameter, torch.nn.Parameter):
                parameter.data = parameter.data.to(dtype)


def _fold_quick_gelu(mlp: Any) -> None:
    """Compute x sigmoid(s x) as silu(s x) / s, with s folded into the weights: one kernel."""
    first, activation, *between, last = mlp
    if isinstance(activation, QuickGELU) and all(isinstance(m, torch.nn.Identity) for m in between):
        for parameter in first.parameters():
            parameter.data.mul_(QUICK_GELU)
        last.weight.data.div_(QUICK_GELU)
        mlp.gelu = torch.nn.SiLU()
