"""Patch tokens in the joint space, and the global feature beside them, one file a kind of tower.

The global feature is what open_clip's `encode_image` gives; it does not depend on the variants that
are requested beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet

from featcache.backbones.patches.lowering import lower_weights
from featcache.backbones.patches.resnet import fold_norms, resnet_features
from featcache.backbones.patches.shared import Features, Reader
from featcache.backbones.patches.single import (
    coca_features,
    has_attention_pool,
    timm_features,
    timm_variant,
)
from featcache.backbones.patches.vit import is_plain_vit, vit_features
from featcache.recipes import VARIANTS

__all__ = ["Features", "Reader", "Tower", "tower_of"]


def _nothing(_: Any) -> None:
    pass


def _no_lowering(_: Any, __: torch.dtype) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Tower:
    """How the features of one kind of image tower are read."""

    variants: tuple[str, ...]
    """Patch variants, the default first."""
    read: Reader
    prepare: Callable[[Any], None] = _nothing
    """Changes the tower once, before it goes to its device."""
    lower: Callable[[Any, torch.dtype], None] = _no_lowering
    """Converts weights once; without it autocast does so in every batch."""


def tower_of(visual: Any) -> Tower | None:
    """Return how to read an image tower; None where only `encode_image` is known to be right."""
    if isinstance(visual, ModifiedResNet):
        return Tower(("maskclip",), resnet_features, _prepare_resnet, lower_weights)
    if is_plain_vit(visual):
        return Tower(VARIANTS, vit_features, _prepare_vit, lower_weights)
    if has_attention_pool(visual):
        return Tower(("maskclip",), coca_features)
    variant = timm_variant(visual)
    return None if variant is None else Tower((variant,), timm_features)


def _prepare_resnet(visual: Any) -> None:
    fold_norms(visual)
    visual.to(memory_format=torch.channels_last)


def _prepare_vit(visual: Any) -> None:
    visual.conv1.to(memory_format=torch.channels_last)
