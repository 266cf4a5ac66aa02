"""A CLIP ResNet: the value path through its attention pool, and norms folded into convolutions.

With F the last stage's map:

    maskclip  patch i = c_proj(v_proj(F_i))                                              (1)

Reference: Zhou et al., MaskCLIP, ECCV 2022, arXiv:2112.01071.
Source: MaskCLIP's released head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featcache.backbones.patches.shared import Features, attend, compute_in, split


def resnet_features(
    visual: Any, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str], dtype: torch.dtype
) -> Features:
    """Run a CLIP ResNet once: global features and maskclip patches if requested, not normalised."""
    pool = visual.attnpool
    with compute_in(pixels.device, dtype):
        x = visual.stem(pixels.contiguous(memory_format=torch.channels_last))
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(x))))
        x = x.flatten(2).transpose(1, 2)  # [b p w]
        with_mean = torch.cat([x.mean(1, keepdim=True), x], 1).float() + pool.positional_embedding
        heads = [
            split(linear(row), pool.num_heads)
            for linear, row in (
                (pool.q_proj, with_mean[:, :1]),
                (pool.k_proj, with_mean),
                (pool.v_proj, with_mean),
            )
        ]
        pooled = attend(*heads).transpose(1, 2).flatten(2)[:, 0]
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
