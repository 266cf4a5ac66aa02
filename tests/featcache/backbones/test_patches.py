import math
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor

from featcache.backbones.patches.lowering import lower_weights
from featcache.backbones.patches.resnet import fold_norms, resnet_features
from featcache.backbones.patches.vit import vit_features
from featcache.recipes import VARIANTS

TOWERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer scale": {"ls_init_value": 0.3},
    "average pool": {"pool_type": "avg"},
    "average pool before ln_post": {"pool_type": "avg", "final_ln_after_pool": True},
    "no ln_pre": {"no_ln_pre": True},
    "normed queries": {"qk_norm": True},
    "normformer": {
        "scale_heads": True,
        "scale_attn_inner": True,
        "scale_attn": True,
        "scale_fc": True,
    },
    "one block": {"layers": 1},
}


def naive(visual: Any, h: Tensor, variant: str) -> Tensor:
    """Equations (1) to (4) for one image, head by head and row by row, in float64."""
    block, attn = visual.transformer.resblocks[-1], visual.transformer.resblocks[-1].attn
    width = h.shape[-1] // attn.num_heads
    y = block.ln_1(h)
    q, k, v = (y @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, -1)
    if variant == "clearclip":
        k = q
    rows = torch.zeros_like(h)
    for head in range(attn.num_heads):
        at = slice(head * width, (head + 1) * width)
        for i in range(len(h)):
            weights = torch.tensor([math.exp(q[i, at] @ r / math.sqrt(width)) for r in k[:, at]])
            weights /= weights.sum()
            rows[i, at] = v[i, at] if variant == "maskclip" else weights.double() @ v[:, at]
    z = block.ls_1(rows @ attn.out_proj.weight.T + attn.out_proj.bias)
    if variant == "vanilla":
        z = h + z
        z = z + block.ls_2(block.mlp(block.ln_2(z)))
    return visual.ln_post(z)[1:] @ visual.proj  # type: ignore[no-any-return]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "tower", ["plain", "layer scale", "average pool", "average pool before ln_post"]
)
def test_patches_equal_naive_loops(make_clip: Callable[..., Any], tower: str, variant: str) -> None:
    visual = make_clip(**TOWERS[tower]).double().visual
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    output = visual.forward_intermediates(
        pixels, indices=[1], output_fmt="NLC", output_extra_tokens=True
    )
    h = torch.cat([output["image_intermediates_prefix"][0], output["image_intermediates"][0]], 1)
    visual, pixels = visual.float(), pixels.float()
    _, found = vit_features(visual, pixels, [variant], torch.float32)
    visual = visual.double()
    expected = torch.stack([naive(visual, row, variant) for row in h])
    torch.testing.assert_close(found[variant].double(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("tower", TOWERS)
def test_global_and_vanilla_equal_open_clip(make_clip: Callable[..., Any], tower: str) -> None:
    model = make_clip(**TOWERS[tower])
    pixels = torch.randn(3, 3, 32, 32)
    found, rows = vit_features(model.visual, pixels, VARIANTS, torch.float32)
    assert torch.allclose(found, model.encode_image(pixels), atol=1e-5)
    tokens = model.visual.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, output_fmt="NLC"
    )["image_intermediates"][0]
    assert torch.allclose(rows["vanilla"], tokens @ model.visual.proj, atol=1e-5)


@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_global_has_the_same_bits_whatever_is_asked_beside_it(
    make_clip: Callable[..., Any], pool_type: str
) -> None:
    visual = make_clip(pool_type=pool_type).visual
    pixels = torch.randn(4, 3, 32, 32)
    alone, nothing = vit_features(visual, pixels, [], torch.float32)
    for variants in (["maskclip"], ["clearclip"], list(VARIANTS)):
        beside, rows = vit_features(visual, pixels, variants, torch.float32)
        assert torch.equal(alone, beside)
        assert list(rows) == variants
    assert nothing == {}


def test_value_path_is_attention_with_the_identity(make_clip: Callable[..., Any]) -> None:
    """Queries so sharp that each token attends to itself: clearclip becomes maskclip."""
    visual = make_clip().visual
    attn = visual.transformer.resblocks[-1].attn
    width = attn.in_proj_weight.shape[1]
    attn.in_proj_weight.data[:width] *= 1e3
    pixels = torch.randn(2, 3, 32, 32)
    _, rows = vit_features(visual, pixels, ["clearclip", "maskclip"], torch.float32)
    close = torch.cosine_similarity(rows["clearclip"], rows["maskclip"], dim=-1) > 0.9999
    assert close.float().mean() > 0.5  # a longer query nearby may still win over its own


@pytest.fixture
def resnet() -> Any:
    """A small CLIP ResNet whose norms have seen something."""
    torch.manual_seed(0)
    model = open_clip.model.CLIP(
        16,
        {"layers": [1, 2, 1, 1], "width": 16, "image_size": 64, "patch_size": None},
        {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    ).eval()
    norms: list[Any] = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    model.requires_grad_(False)
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0.0, 0.2)
        norm.running_mean.normal_(0.0, 0.2)
        norm.running_var.uniform_(0.5, 2.0)
    return model


def test_norms_in_the_convolutions_change_no_feature(resnet: Any) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    exact, rows = resnet_features(resnet.visual, pixels, ["maskclip"], torch.float32)
    fold_norms(resnet.visual)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in resnet.modules())
    found, folded = resnet_features(resnet.visual, pixels, ["maskclip"], torch.float32)
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-5)
    assert torch.allclose(folded["maskclip"], rows["maskclip"], rtol=1e-4, atol=1e-5)


def test_resnet_gives_encode_image_and_values(resnet: Any) -> None:
    model = resnet
    pixels = torch.randn(2, 3, 64, 64)
    found, rows = resnet_features(model.visual, pixels, ["maskclip"], torch.float32)
    assert torch.allclose(found, model.encode_image(pixels), atol=1e-5)
    f = model.visual.forward_intermediates(pixels, indices=[4])["image_intermediates"][0]
    pool = model.visual.attnpool
    values = [
        [pool.c_proj(pool.v_proj(f[n, :, i, j])) for i in (0, 1) for j in (0, 1)] for n in (0, 1)
    ]
    expected = torch.stack([torch.stack(row) for row in values])
    assert torch.allclose(rows["maskclip"], expected, atol=1e-5)
    alone, _ = resnet_features(model.visual, pixels, [], torch.float32)
    assert torch.equal(alone, found)


@pytest.mark.parametrize("tower", ["plain", "layer scale", "normed queries", "normformer"])
def test_bf16_keeps_the_direction(make_clip: Callable[..., Any], tower: str) -> None:
    visual = make_clip(**TOWERS[tower]).visual
    pixels = torch.randn(16, 3, 32, 32)
    exact, rows = vit_features(visual, pixels, VARIANTS, torch.float32)
    lower_weights(visual, torch.bfloat16)
    found, lowered = vit_features(visual, pixels, VARIANTS, torch.bfloat16)
    assert found.dtype is torch.float32
    assert not torch.equal(found, exact)
    assert torch.cosine_similarity(found, exact).min() > 0.999
    for variant in VARIANTS:
        cosine = torch.cosine_similarity(lowered[variant], rows[variant], dim=-1)
        assert cosine.min() > 0.998  # 24 dimensions forgive less than 512
        assert cosine.mean() > 0.9998


@pytest.mark.parametrize("tower", ["plain", "normed queries", "normformer"])
def test_folded_quick_gelu_is_the_same_function(make_clip: Callable[..., Any], tower: str) -> None:
    visual = make_clip(quick_gelu=True, **TOWERS[tower]).visual
    pixels = torch.randn(3, 3, 32, 32)
    exact, rows = vit_features(visual, pixels, VARIANTS, torch.float32)
    lower_weights(visual, torch.float32)  # folds, and lowers nothing
    kinds = {type(block.mlp.gelu) for block in visual.transformer.resblocks}
    assert kinds == {QuickGELU if tower == "normformer" else torch.nn.SiLU}
    found, folded = vit_features(visual, pixels, VARIANTS, torch.float32)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)
    for variant in VARIANTS:
        torch.testing.assert_close(folded[variant], rows[variant], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_in_either_layout_and_beyond_the_grid_are_convolved(
    make_clip: Callable[..., Any], layout: torch.memory_format
) -> None:
    visual = make_clip(image_size=36).visual  # patches of 8 leave four columns over
    pixels = torch.randn(2, 3, 36, 36).contiguous(memory_format=layout)
    found, _ = vit_features(visual, pixels, (), torch.float32)
    assert torch.allclose(found, visual(pixels), atol=1e-5)
