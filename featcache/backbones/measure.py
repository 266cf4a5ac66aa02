"""Width, patches and work of an image tower, also of one on torch's meta device without numbers."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from featcache.backbones.models import vit_gflops
from featcache.backbones.patches import tower_of
from featcache.backbones.patches.vit import is_plain_vit


@torch.inference_mode()
def measure(model: Any, side: int, device: torch.device) -> tuple[int, int, float]:
    """Return the width of the joint space, patches of an image, and GFLOPs of one image.

    Args:
        model: An open_clip model on `device`.
        side: Pixels of its square input.
        device: Where to run one forward pass; `meta` computes shapes only.
    """
    visual = model.visual
    if is_plain_vit(visual):
        p = visual.grid_size[0] * visual.grid_size[1]
        block = visual.transformer.resblocks[0]
        flops = vit_gflops(
            width=visual.conv1.out_channels,
            layers=len(visual.transformer.resblocks),
            mlp_ratio=block.mlp.c_fc.out_features / block.mlp.c_fc.in_features,
            patches=p,
            patch_size=side // visual.grid_size[0],
            dim=visual.proj.shape[1],
        )
        return int(visual.proj.shape[1]), p, flops
    pixels = torch.zeros(1, 3, side, side, device=device)
    with FlopCounterMode(display=False) as counter:
        features = model.encode_image(pixels)
    p, tower = 0, tower_of(visual)
    if tower is not None:
        _, rows = tower.read(visual, pixels, tower.variants[:1], torch.float32)
        p = rows[tower.variants[0]].shape[1]
    return int(features.shape[1]), p, counter.get_total_flops() / 1e9
