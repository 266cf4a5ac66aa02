"""Patch tokens in the joint space, in three variants of the last block, and the global feature.

A ViT, with h the tokens before its last block, y = ln_1(h) and q, k, v the heads of y, width e:

    vanilla    z = h + O(softmax(q k^T / sqrt(e)) v);  z = z + mlp(ln_2(z))              (1)
    clearclip  z = O(softmax(q q^T / sqrt(e)) v)                                         (2)
    maskclip   z = O(v)                                                                  (3)
    patch i  = ln_post(z_i) @ proj                                                       (4)

A ResNet, with F the last stage's map, has one variant: maskclip patch i = c_proj(v_proj(F_i)).
O includes LayerScale if a tower has it. The global feature is the class token of (1), or the
tower's other kind of pooling; it does not depend on the requested variants.

Reference: Lan et al., ClearCLIP, ECCV 2024, arXiv:2407.12442; Zhou et al., MaskCLIP, ECCV 2022,
    arXiv:2112.01071.
Source: (2) and (3) released code of ClearCLIP; the ResNet's from MaskCLIP's released head.
Differs from the paper: the original MaskCLIP keeps residual and mlp on a ViT; (3) does not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import (
    CustomResidualAttentionBlock,
    QuickGELU,
    ResidualAttentionBlock,
    VisionTransformer,
)
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featcache.recipes import VARIANTS

QUICK_GELU = 1.702
"""The slope s of quick GELU, x sigmoid(s x)."""

Features = tuple[Float[Tensor, "b d"], dict[str, Float[Tensor, "b p d"]]]
Reader = Callable[[Any, Tensor, Sequence[str], torch.dtype], Features]


def variants_of(visual: Any) -> tuple[str, ...]:
    """Return the variants of an image tower, the default first; empty for unsupported towers."""
    if isinstance(visual, ModifiedResNet):
        return ("maskclip",)
    return VARIANTS if is_plain_vit(visual) else ()


def reader_of(visual: Any) -> Reader | None:
    """Return the function that computes features and patches; None for unsupported towers."""
    if isinstance(visual, ModifiedResNet):
        return resnet_features
    return vit_features if is_plain_vit(visual) else None


def is_plain_vit(visual: Any) -> bool:
    """Tell whether equations (1) to (4) describe this tower."""
    if not isinstance(visual, VisionTransformer):
        return False
    blocks = visual.transformer.resblocks
    kinds = (ResidualAttentionBlock, CustomResidualAttentionBlock)
    return (
        visual.attn_pool is None
        and not visual.final_ln_after_pool
        and visual.pool_type in ("tok", "avg")
        and all(isinstance(block, kinds) for block in blocks)
        and all(getattr(block.attn, "logit_scale", None) is None for block in blocks)
    )


def vit_features(
    visual: Any, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str], dtype: torch.dtype
) -> Features:
    """Run a plain ViT once: global features and the patches of each variant, not normalised."""
    with _compute_in(pixels.device, dtype):
        h = _embed(visual, pixels)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            q, k, v = _heads(block.attn, block.ln_1(h), "qkv")
            h = _add(block, h, _attend(q, k, v))
        y = last.ln_1(h)
        k, v = _heads(last.attn, y, "kv")
        if visual.pool_type == "tok":  # the global feature needs one row of (1) only
            (q,) = _heads(last.attn, y[:, :1], "q")
            pooled = _add(last, h[:, :1], _attend(q, k, v))
        z = {}
        if visual.pool_type == "avg" or {"vanilla", "clearclip"} & set(variants):
            (q,) = _heads(last.attn, y, "q")
        if visual.pool_type == "avg" or "vanilla" in variants:
            z["vanilla"] = _add(last, h, _attend(q, k, v))
        if "clearclip" in variants:
            z["clearclip"] = _out(last, _attend(q, q, v))
        if "maskclip" in variants:
            z["maskclip"] = _out(last, v)
    if visual.pool_type == "avg":
        pooled = visual.ln_post(z["vanilla"].float())[:, 1:].mean(1, keepdim=True)
    else:
        pooled = visual.ln_post(pooled.float())
    patches = {name: visual.ln_post(z[name][:, 1:].float()) @ visual.proj for name in variants}
    return (pooled @ visual.proj)[:, 0], patches


def resnet_features(
    visual: Any, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str], dtype: torch.dtype
) -> Features:
    """Run a CLIP ResNet once: global features and maskclip patches if requested, not normalised."""
    pool = visual.attnpool
    with _compute_in(pixels.device, dtype):
        x = visual.stem(pixels.contiguous(memory_format=torch.channels_last))
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(x))))
        x = x.flatten(2).transpose(1, 2)  # [b p w]
        with_mean = torch.cat([x.mean(1, keepdim=True), x], 1).float() + pool.positional_embedding
        heads = [
            _split(linear(row), pool.num_heads)
            for linear, row in (
                (pool.q_proj, with_mean[:, :1]),
                (pool.k_proj, with_mean),
                (pool.v_proj, with_mean),
            )
        ]
        pooled = _attend(*heads).transpose(1, 2).flatten(2)[:, 0]
        values = pool.v_proj(x) if variants else None
    patches = {} if values is None else {"maskclip": pool.c_proj(values.float())}
    return pool.c_proj(pooled.float()), patches


def fold_norms(visual: ModifiedResNet) -> None:
    """Fold the batch norms of a frozen ResNet into its convolutions, which saves memory traffic.

    In evaluation a norm is a scale and a shift per channel. Folding changes float32 rounding.
    Norms that are folded already are skipped.
    """
    layers: Any = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
    for block in (visual, *(block for layer in layers for block in layer)):
        for i in (1, 2, 3):
            _fold(block, f"conv{i}", f"bn{i}")
        if getattr(block, "downsample", None) is not None:
            _fold(block.downsample, "0", "1")


def _fold(parent: torch.nn.Module, convolution: str, norm: str) -> None:
    batch_norm = getattr(parent, norm)
    if isinstance(batch_norm, torch.nn.BatchNorm2d):
        setattr(parent, convolution, fuse_conv_bn_eval(getattr(parent, convolution), batch_norm))
        setattr(parent, norm, torch.nn.Identity())


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


def _embed(visual: Any, pixels: Tensor) -> Tensor:
    convolve = _patch_rows if pixels.device.type == "cpu" else _convolved
    x = convolve(visual.conv1, pixels).float()
    cls = visual.class_embedding.expand(len(x), 1, -1)
    x = torch.cat([cls, x], 1) + visual.positional_embedding  # [b 1+p w], float32 from here on
    return visual.ln_pre(x)  # type: ignore[no-any-return]


def _convolved(conv: Any, pixels: Tensor) -> Tensor:
    return conv(pixels).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def _patch_rows(conv: Any, pixels: Tensor) -> Tensor:
    """Convolve non-overlapping windows as one matrix product: half the time on a CPU."""
    side = conv.kernel_size[0]
    across = pixels.shape[-1] // side
    levels = pixels.to(conv.weight.dtype).permute(0, 2, 3, 1)[:, : across * side, : across * side]
    rows = levels.reshape(len(pixels), across, side, across, -1).transpose(2, 3)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # a view if channels_last
    return F.linear(rows.reshape(len(pixels), across**2, -1), weight, conv.bias)


def _heads(attn: Any, y: Tensor, parts: str) -> tuple[Tensor, ...]:
    """Project to adjacent parts of "qkv", each [b heads n e]."""
    width = attn.in_proj_weight.shape[1]
    start = "qkv".index(parts) * width
    rows = slice(start, start + len(parts) * width)
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[rows]
    projected = F.linear(y, attn.in_proj_weight[rows], bias).chunk(len(parts), dim=-1)
    heads = [_split(x, attn.num_heads) for x in projected]
    norms = [getattr(attn, f"ln_{part}", None) for part in parts]  # norms of q and k
    return tuple(x if n is None else n(x) for x, n in zip(heads, norms, strict=True))


def _split(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)  # [b heads n e]


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    dtype = v.dtype  # norms return queries and keys as float32
    return F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v)


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


def _compute_in(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    enabled = dtype is not torch.float32
    return torch.autocast(device.type, dtype=dtype if enabled else None, enabled=enabled)
