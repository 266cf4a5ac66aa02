"""Towers that end in pooling: a patch is what they answer if its token is the only one.

With T the tokens, or positions of the last map, before the tower's pooling, and g all that follows
(pool, norm, projection):

    patch i = g(T_i alone)                                                               (1)

An average over one position is that position, so towers that average (ConvNeXt, FastViT, Swin,
ViTamin) give the map before pooling, through norm and projection: `vanilla`. So do towers that take
the class token (EVA, MobileCLIP-B), with each token in its place. An attention pool over one token
gives it all weight, so (1) is the value path through the pool, with the pool's mlp where it has
one: `maskclip`, as for a ResNet (SigLIP, PE-Core, CoCa).

Source: our own; (1) for an attention pool is MaskCLIP's released head (Zhou et al., ECCV 2022,
    arXiv:2112.01071) with what follows the pool's output projection.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from featcache.backbones.patches.shared import Features, compute_in


def timm_variant(visual: Any) -> str | None:
    """Name the one variant that a tower of timm has; None where (1) cannot be computed.

    A pool in open_clip's own head (`abs_attn`, `rot_attn`) has positions for the whole map.
    """
    if not isinstance(visual, TimmModel) or "pool" in visual.head._modules:
        return None
    pool = getattr(visual.trunk, "attn_pool", None)
    if pool is None:
        return "vanilla"
    return "maskclip" if pool.pos_embed is None else None


def timm_features(
    visual: Any, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str], dtype: torch.dtype
) -> Features:
    """Run a tower of timm once: global features and, if requested, patches; not normalised."""
    trunk = visual.trunk
    with compute_in(pixels.device, dtype):
        tokens = trunk.forward_features(pixels)
        pooled = visual.head(trunk.forward_head(tokens)).float()
        if not variants:
            return pooled, {}
        rows = visual.head(trunk.forward_head(_alone(trunk, tokens)))
    return pooled, {variants[0]: rows.float().unflatten(0, (len(pixels), -1))}


def _alone(trunk: Any, tokens: Tensor) -> Tensor:
    """Make a batch of single positions, row by row of the image."""
    if tokens.ndim == 3:
        prefix = trunk.num_prefix_tokens
        single = tokens[:, prefix:].flatten(0, 1).unsqueeze(1)  # [b p, 1, w]
        if prefix and str(trunk.global_pool).startswith("avg"):  # it leaves these out
            return torch.cat([single.new_zeros(len(single), prefix, single.shape[-1]), single], 1)
        return single
    if getattr(trunk, "output_fmt", "NCHW") == "NHWC":
        return tokens.flatten(0, 2)[:, None, None]
    return tokens.flatten(2).transpose(1, 2).flatten(0, 1)[:, :, None, None]


def has_attention_pool(visual: Any) -> bool:
    """Tell whether it is a ViT of open_clip whose tokens go through one attention pool, as CoCa's.

    open_clip can build a second pool behind or beside it, which it calls untested; no published
    model has one.
    """
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is None:
        return False
    return visual.attn_pool_contrastive is None


def coca_features(
    visual: Any, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str], dtype: torch.dtype
) -> Features:
    """Run CoCa's tower once: global features and, if requested, patches; not normalised."""
    with compute_in(pixels.device, dtype):
        tokens = visual.transformer(visual._embeds(pixels))
        pooled, _ = visual._pool(tokens)
        z = _values(visual, tokens[:, 1:]) if variants else None
    patches = {} if z is None else {variants[0]: z.float() @ visual.proj}
    return pooled.float() @ visual.proj, patches


def _values(visual: Any, tokens: Tensor) -> Tensor:
    """Take each token along the value path through the pool, then through ln_post."""
    attn, y = visual.attn_pool.attn, visual.attn_pool.ln_k(tokens)
    width = attn.embed_dim
    weight = attn.v_proj_weight if attn.in_proj_weight is None else attn.in_proj_weight[2 * width :]
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[2 * width :]
    return visual.ln_post(attn.out_proj(F.linear(y, weight, bias)))  # type: ignore[no-any-return]
