"""A plain ViT: patch tokens in three variants of the last block, and the global feature.

With h the tokens before its last block, y = ln_1(h) and q, k, v the heads of y, width e:

    vanilla    z = h + O(softmax(q k^T / sqrt(e)) v);  z = z + mlp(ln_2(z))              (1)
    clearclip  z = O(softmax(q q^T / sqrt(e)) v)                                         (2)
    maskclip   z = O(v)                                                                  (3)
    patch i  = ln_post(z_i) @ proj                                                       (4)

O includes LayerScale if a tower has it. The global feature is the class token of (1), or the mean
of its patches, with ln_post before the mean or, in CLIPA, after it. The tokens `last-block` are h.

Reference: Lan et al., ClearCLIP, ECCV 2024, arXiv:2407.12442; Zhou et al., MaskCLIP, ECCV 2022,
    arXiv:2112.01071.
Source: (2) and (3) released code of ClearCLIP.
Differs from the paper: the original MaskCLIP keeps residual and mlp on a ViT; (3) does not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from open_clip.transformer import (
    CustomResidualAttentionBlock,
    ResidualAttentionBlock,
    VisionTransformer,
)
from torch import Tensor
from torch.nn import functional as F

from featcache.backbones.patches.shared import Features, attend, compute_in, split
from featcache.recipes import LAST_BLOCK


def is_plain_vit(visual: Any) -> bool:
    """Tell whether equations (1) to (4) describe this tower."""
    if not isinstance(visual, VisionTransformer):
        return False
    blocks = visual.transformer.resblocks
    kinds = (ResidualAttentionBlock, CustomResidualAttentionBlock)
    return (
        visual.attn_pool is None
        and visual.pool_type in ("tok", "avg")
        and all(isinstance(block, kinds) for block in blocks)
        and all(getattr(block.attn, "logit_scale", None) is None for block in blocks)
    )


def vit_features(
    visual: Any, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str], dtype: torch.dtype
) -> Features:
    """Run a plain ViT once: global features, patches of each variant and tokens, not normalised."""
    with compute_in(pixels.device, dtype):
        h = _embed(visual, pixels)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            q, k, v = _heads(block.attn, block.ln_1(h), "qkv")
            h = _add(block, h, attend(q, k, v))
        y = last.ln_1(h)
        k, v = _heads(last.attn, y, "kv")
        if visual.pool_type == "tok":  # the global feature needs one row of (1) only
            (q,) = _heads(last.attn, y[:, :1], "q")
            pooled = _add(last, h[:, :1], attend(q, k, v))
        z = {}
        if visual.pool_type == "avg" or {"vanilla", "clearclip"} & set(variants):
            (q,) = _heads(last.attn, y, "q")
        if visual.pool_type == "avg" or "vanilla" in variants:
            z["vanilla"] = _add(last, h, attend(q, k, v))
        if "clearclip" in variants:
            z["clearclip"] = _out(last, attend(q, q, v))
        if "maskclip" in variants:
            z["maskclip"] = _out(last, v)
    if visual.pool_type == "tok":
        pooled = visual.ln_post(pooled.float())
    elif visual.final_ln_after_pool:
        pooled = visual.ln_post(z["vanilla"].float()[:, 1:].mean(1, keepdim=True))
    else:
        pooled = visual.ln_post(z["vanilla"].float())[:, 1:].mean(1, keepdim=True)
    wanted = [name for name in variants if name in z]
    rows = {name: visual.ln_post(z[name][:, 1:].float()) @ visual.proj for name in wanted}
    rows[LAST_BLOCK] = h.float()
    return (pooled @ visual.proj)[:, 0], {name: rows[name] for name in variants}


def _embed(visual: Any, pixels: Tensor) -> Tensor:
    convolve = _patch_rows if pixels.device.type == "cpu" else _convolved
    x = convolve(visual.conv1, pixels).float()
    cls = visual.class_embedding.expand(x.shape[0], 1, -1)
    x = torch.cat([cls, x], 1) + visual.positional_embedding  # [b 1+p w], float32 from here on
    return visual.ln_pre(x)  # type: ignore[no-any-return]


def _convolved(conv: Any, pixels: Tensor) -> Tensor:
    return conv(pixels).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def _patch_rows(conv: Any, pixels: Tensor) -> Tensor:
    """Convolve non-overlapping windows as one matrix product: half the time on a CPU."""
    side = conv.kernel_size[0]
    across = pixels.shape[-1] // side
    levels = pixels.to(conv.weight.dtype).permute(0, 2, 3, 1)[:, : across * side, : across * side]
    rows = levels.reshape(pixels.shape[0], across, side, across, -1).transpose(2, 3)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # a view if channels_last
    return F.linear(rows.reshape(pixels.shape[0], across**2, -1), weight, conv.bias)


def _heads(attn: Any, y: Tensor, parts: str) -> tuple[Tensor, ...]:
    """Project to adjacent parts of "qkv", each [b heads n e]."""
    width = attn.in_proj_weight.shape[1]
    start = "qkv".index(parts) * width
    rows = slice(start, start + len(parts) * width)
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[rows]
    projected = F.linear(y, attn.in_proj_weight[rows], bias).chunk(len(parts), dim=-1)
    heads = [split(x, attn.num_heads) for x in projected]
    norms = [getattr(attn, f"ln_{part}", None) for part in parts]  # norms of q and k
    return tuple(x if n is None else n(x) for x, n in zip(heads, norms, strict=True))


def _out(block: Any, x: Tensor) -> Tensor:
    """Merge the heads: O of the equations, with LayerScale."""
    attn = block.attn
    if getattr(attn, "head_scale", None) is not None:
        x = x * attn.head_scale
    x = x.transpose(1, 2).flatten(2)
    x = attn.out_proj(attn.ln_inner(x) if hasattr(attn, "ln_inner") else x)
    x = block.ln_attn(x) if hasattr(block, "ln_attn") else x
    return block.ls_1(x)  # type: ignore[no-any-return]


def _add(block: Any, h: Tensor, attended: Tensor) -> Tensor:
    """Finish a block as in (1): residual, then mlp."""
    h = h + _out(block, attended)
    return h + block.ls_2(block.mlp(block.ln_2(h)))  # type: ignore[no-any-return]
