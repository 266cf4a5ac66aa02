"""Towers that end in pooling, beside definitions written down position by position."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import open_clip
import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import Tensor

from featcache.backbones.models import build_model, without_texts
from featcache.backbones.patches import tower_of

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
SMALL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "siglip": ({"model_name": "vit_base_patch16_siglip_224", "pool": "map", "proj": "none"}, VIT),
    "pe-core": ({"model_name": "vit_pe_core_tiny_patch16_384", "pool": "map", "proj": ""}, VIT),
    "eva02": ({"model_name": "eva02_base_patch16_clip_224", "pool": "token", "proj": ""}, VIT),
    "mobileclip-b": (
        {"model_name": "vit_base_mci_224", "pool": "token", "proj": ""},
        {"depth": 1},  # its stem fixes the width
    ),
    "gap": ({"model_name": "vit_medium_patch16_gap_256", "pool": "", "proj": "linear"}, VIT),
    "relpos": (
        {"model_name": "vit_relpos_medium_patch16_cls_224", "pool": "", "proj": "linear"},
        VIT,
    ),
    "convnext": (
        {"model_name": "convnext_tiny", "pool": "", "proj": "linear"},
        {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    ),
    "convnext, mlp": (
        {"model_name": "convnext_tiny", "pool": "", "proj": "mlp"},
        {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    ),
    "mobileclip-s0": (
        {"model_name": "fastvit_mci0", "pool": "avg", "proj": ""},
        {"layers": (1, 1, 1, 1), "embed_dims": (8, 16, 32, 64)},
    ),
    "swin": (
        {"model_name": "swin_base_patch4_window7_224", "pool": "", "proj": "linear"},
        {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2)},
    ),
}
"""Family -> its adapter, and what makes its trunk small."""
ATTENDED = ("siglip", "pe-core")


def small(family: str, **more: Any) -> Any:
    """Return a tower of the family with random weights that differ from their start."""
    adapter, trunk = SMALL[family]
    create = partial(timm.create_model, **trunk)
    torch.manual_seed(0)
    with patch("timm.create_model", create):
        tower = TimmModel(embed_dim=32, **adapter, **more).eval().requires_grad_(False)
    for parameter in tower.parameters():  # norms and scales start at one, biases at zero
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return tower


def pixels_for(tower: Any) -> Tensor:
    side = tower.trunk.default_cfg["input_size"][-1]
    return torch.randn(2, 3, side, side)


def through_attention_pool(pool: Any, token: Tensor) -> Tensor:
    """Give one token all the weight of timm's attention pool."""
    width = pool.kv.out_features // 2
    value = pool.kv.weight[width:] @ token + pool.kv.bias[width:]
    z = pool.proj.weight @ value + pool.proj.bias
    hidden = pool.mlp.act(pool.mlp.fc1.weight @ pool.norm(z) + pool.mlp.fc1.bias)
    return z + pool.mlp.fc2.weight @ hidden + pool.mlp.fc2.bias  # type: ignore[no-any-return]


def naive(tower: Any, family: str, pixels: Tensor) -> Tensor:
    """Compute every patch from the trunk's last map, one position after the other."""
    trunk = tower.trunk
    tokens = trunk.forward_features(pixels)
    if tokens.ndim == 4 and family != "swin":
        tokens = tokens.permute(0, 2, 3, 1)
    if tokens.ndim == 4:
        tokens = tokens.reshape(len(pixels), -1, tokens.shape[-1])
    elif family not in ("siglip", "gap"):
        tokens = tokens[:, 1:]  # the class token

    def answer(token: Tensor) -> Tensor:
        if family in ATTENDED:
            token = through_attention_pool(trunk.attn_pool, token)
        if family.startswith("convnext"):
            norm = trunk.head.norm
            centred = token - token.mean()
            token = centred / (centred.pow(2).mean() + norm.eps).sqrt() * norm.weight + norm.bias
        elif hasattr(trunk, "fc_norm"):
            token = trunk.fc_norm(token)
        if family in ("mobileclip-s0",):
            token = trunk.head.fc(token)
        elif family in ("eva02", "mobileclip-b", "pe-core"):
            token = trunk.head(token)
        return tower.head(token[None])[0]  # type: ignore[no-any-return]

    return torch.stack([torch.stack([answer(token) for token in image]) for image in tokens])


@pytest.mark.parametrize("family", SMALL)
def test_patches_equal_the_definition(family: str) -> None:
    tower = small(family)
    reading = tower_of(tower)
    assert reading is not None
    variant = "maskclip" if family in ATTENDED else "vanilla"
    assert reading.variants == (variant,)
    pixels = pixels_for(tower)
    pooled, patches = reading.read(tower, pixels, [variant], torch.float32)
    torch.testing.assert_close(pooled, tower(pixels), atol=1e-5, rtol=1e-5)
    expected = naive(tower, family, pixels)
    torch.testing.assert_close(patches[variant], expected, atol=2e-5, rtol=1e-4)
    assert (patches[variant][0].std(dim=0) > 0).all()  # positions differ
    alone, nothing = reading.read(tower, pixels, [], torch.float32)
    assert torch.equal(alone, pooled)
    assert nothing == {}


@pytest.mark.parametrize("family", ["gap", "convnext", "mobileclip-s0", "swin"])
def test_patches_average_to_the_pooled_map_where_nothing_but_a_mean_pools(family: str) -> None:
    """With a linear head and no norm behind the pool, their mean is the global feature."""
    tower = small(family)
    reading = tower_of(tower)
    assert reading is not None
    trunk = tower.trunk
    if family == "convnext":
        trunk.head.norm = torch.nn.Identity()
    if hasattr(trunk, "fc_norm"):
        trunk.fc_norm = torch.nn.Identity()
    pixels = pixels_for(tower)
    pooled, patches = reading.read(tower, pixels, ["vanilla"], torch.float32)
    torch.testing.assert_close(patches["vanilla"].mean(1), pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [24, 32])
def test_coca_gives_the_value_path_through_its_pool(
    make_clip: Callable[..., Any], width: int
) -> None:
    """At a width of 24 keys and values share one matrix with queries, at 32 they do not."""
    vision = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 5}
    visual = make_clip(**vision, width=width, head_width=8).visual
    reading = tower_of(visual)
    assert reading is not None
    assert reading.variants == ("maskclip",)
    pixels = torch.randn(2, 3, 32, 32)
    pooled, patches = reading.read(visual, pixels, ["maskclip"], torch.float32)
    torch.testing.assert_close(pooled, visual(pixels), atol=1e-5, rtol=1e-5)
    tokens = visual.transformer(visual._embeds(pixels))[:, 1:]
    for image, row in zip(tokens, patches["maskclip"], strict=True):
        for token, found in zip(image, row, strict=True):
            alone, _ = visual._pool(token[None, None])
            torch.testing.assert_close(found, (alone @ visual.proj)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", ["parallel", "cascade"])
def test_two_pools_have_none(make_clip: Callable[..., Any], pool: str) -> None:
    visual = make_clip(attentional_pool=pool, attn_pooler_heads=2, width=24, head_width=8).visual
    assert tower_of(visual) is None


def test_a_pool_with_places_for_the_whole_map_has_none() -> None:
    adapter = {"model_name": "resnet10t", "embed_dim": 32, "pool": "abs_attn", "proj": ""}
    tower = TimmModel(**adapter).eval()
    assert tower_of(tower) is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "variant", "count"),
    [
        ("ViT-B-32-SigLIP2-256", "maskclip", 64),
        ("ViT-B-16-SigLIP", "maskclip", 196),
        ("PE-Core-T-16-384", "maskclip", 576),
        ("MobileCLIP2-S0", "vanilla", 64),
        ("MobileCLIP-B", "vanilla", 196),
        ("ViT-B-32-quickgelu", "clearclip", 49),  # as MetaCLIP's and DFN's
        ("coca_ViT-B-32", "maskclip", 49),
        ("EVA02-B-16", "vanilla", 196),
        ("ViTamin-S", "vanilla", 196),
        ("convnext_tiny", "vanilla", 49),
        ("swin_base_patch4_window7_224", "vanilla", 49),
    ],
)
def test_the_smallest_of_each_family(name: str, variant: str, count: int) -> None:
    """The global feature is open_clip's, and the tokens are as many as the map has places."""
    config = without_texts(open_clip.get_model_config(name))
    model = build_model(config, seed=0).eval()
    reading = tower_of(model.visual)
    assert reading is not None
    assert reading.variants[0] == variant
    side = model.visual.image_size
    side = side[0] if isinstance(side, tuple) else side
    pixels = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        pooled, patches = reading.read(model.visual, pixels, [variant], torch.float32)
        expected = model.encode_image(pixels)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    assert patches[variant].shape == (1, count, pooled.shape[1])
    assert patches[variant].isfinite().all()
