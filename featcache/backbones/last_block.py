"""Take the last block out of a frozen tower, or say why it has none that can be stored."""

from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock

from featcache.backbones.patches.vit import is_plain_vit
from featcache.errors import BackboneError
from featcache.last_block import LastBlock, shapes
from featcache.wording import Argument

FAMILIES = "plain ViTs (CLIP, OpenCLIP, MetaCLIP, DFN, DataComp, CLIPA and tiny)"
"""Families whose last block can be stored, for messages and docs/backbones.md."""


def last_block_of(visual: Any, name: str) -> LastBlock:
    """Return the last block of a tower whose weights are float32 and as they were loaded.

    Args:
        visual: Image tower of open_clip. The tensors are its own, not copies.
        name: Name of the backbone, for the error.

    Raises:
        BackboneError: If the tower ends in another way.
    """
    if why := why_not(visual):
        raise BackboneError(
            f"The image tower of {name} {why}, so it has no tokens before a last block. Only "
            f"{FAMILIES} have them. Leave ",
            Argument("tokens"),
            " out.",
        )
    block = visual.transformer.resblocks[-1]
    parameters = {**dict(block.named_parameters()), "proj": visual.proj}
    parameters |= {f"ln_post.{n}": p for n, p in visual.ln_post.named_parameters()}
    return LastBlock(
        heads=block.attn.num_heads,
        activation=_activation(block.mlp.gelu),
        eps=float(block.ln_1.eps),
        pool=visual.pool_type,
        norm_after_pool=bool(visual.final_ln_after_pool),
        tensors={n: p.detach() for n, p in parameters.items()},
    )


def why_not(visual: Any) -> str:
    """Return why the last block of a tower cannot be stored; empty if it can.

    The reason is a predicate: "ends in an attention pool".
    """
    if not is_plain_vit(visual):
        has_pool = getattr(visual, "attn_pool", None) is not None
        return "ends in an attention pool" if has_pool else "is no plain ViT of open_clip"
    block = visual.transformer.resblocks[-1]
    if not isinstance(block, ResidualAttentionBlock):
        return "has blocks with further norms"
    if not _activation(block.mlp.gelu):
        return f"has the activation {type(block.mlp.gelu).__name__}"
    norms = (block.ln_1, block.ln_2, visual.ln_post)
    if len({norm.eps for norm in norms}) > 1:
        return "has norms with different epsilons"
    w, d = visual.proj.shape
    every, scales = shapes(w, block.mlp.c_fc.out_features, d)
    parameters = {name for name, _ in block.named_parameters()} | {"proj"}
    parameters |= {f"ln_post.{name}" for name, _ in visual.ln_post.named_parameters()}
    expected = every.keys() | (scales.keys() & parameters)
    return "" if parameters == expected else "has a last block with other tensors"


def _activation(module: Any) -> str:
    """Name an activation as `featcache.last_block` does; empty if it is another one."""
    if isinstance(module, QuickGELU):
        return "quick_gelu"
    if isinstance(module, torch.nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return ""
