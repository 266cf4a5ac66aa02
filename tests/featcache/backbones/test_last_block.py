"""The last block on its own: tokens in, what `encode_image` gives out."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.backbones.last_block import last_block_of
from featcache.backbones.patches.vit import vit_features
from featcache.encoding.components import component_specs, spec_named
from featcache.errors import BackboneError, UnknownNameError, UsageError
from featcache.last_block import LastBlock
from featcache.recipes import LAST_BLOCK, VARIANTS
from tests.featcache.backbones.wrapped import wrapped

TOWERS: dict[str, dict[str, Any]] = {
    "gelu": {},
    "quick gelu": {"quick_gelu": True},
    "tanh gelu": {"act_kwargs": {"approximate": "tanh"}},
    "layer scale": {"ls_init_value": 0.3},
    "mean": {"pool_type": "avg"},
    "mean before ln_post": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "one block": {"layers": 1},
    "another epsilon": {"norm_kwargs": {"eps": 1e-3}},
}


def naive(block: LastBlock, h: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """Equations (1) to (3) for one image with class token, in float64, token by token."""
    p = {name: values.double() for name, values in block.tensors.items()}

    def norm(name: str, x: Tensor) -> Tensor:
        spread = ((x - x.mean()) ** 2).mean()
        return (x - x.mean()) / (spread + block.eps).sqrt() * p[f"{name}.weight"] + p[
            f"{name}.bias"
        ]

    rows = [p["attn.in_proj_weight"] @ norm("ln_1", x) + p["attn.in_proj_bias"] for x in h]
    w, e = len(h[0]), len(h[0]) // block.heads
    merged = []
    for head in range(block.heads):
        q, k, v = (slice(at + head * e, at + (head + 1) * e) for at in (0, w, 2 * w))
        weights = [math.exp(float(rows[0][q] @ row[k]) / math.sqrt(e)) for row in rows]
        merged += [
            torch.stack([a * row[v] for a, row in zip(weights, rows, strict=True)]).sum(0)
            / sum(weights)
        ]
    z = h[0] + p["attn.out_proj.weight"] @ torch.cat(merged) + p["attn.out_proj.bias"]
    hidden = act(p["mlp.c_fc.weight"] @ norm("ln_2", z) + p["mlp.c_fc.bias"])
    z = z + p["mlp.c_proj.weight"] @ hidden + p["mlp.c_proj.bias"]
    return norm("ln_post", z) @ p["proj"]


@pytest.mark.parametrize("kind", ["gelu", "quick gelu"])
def test_encode_equals_naive_loops(make_clip: Callable[..., Any], kind: str) -> None:
    block = last_block_of(make_clip(**TOWERS[kind]).visual, "Toy")
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(2, 5, 64, generator=generator)
    act = (lambda x: x / (1 + torch.exp(-1.702 * x))) if kind == "quick gelu" else F.gelu
    expected = torch.stack([naive(block, h.double(), act) for h in tokens])
    torch.testing.assert_close(block.encode(tokens).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tower", TOWERS)
def test_forward_of_the_tokens_is_encode_image(make_clip: Callable[..., Any], tower: str) -> None:
    model = make_clip(**TOWERS[tower])
    block = last_block_of(model.visual, "Toy")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    exact = model.encode_image(pixels)
    _, rows = wrapped(model).encode_images(pixels, [LAST_BLOCK])
    assert rows[LAST_BLOCK].shape == (3, 17, 64)
    assert torch.allclose(block.encode(rows[LAST_BLOCK]), exact, atol=1e-5)
    unit = F.normalize(exact, dim=-1)
    assert torch.allclose(block.forward(rows[LAST_BLOCK]), unit, atol=1e-5)
    halved = block.forward(rows[LAST_BLOCK].half().float())
    assert torch.cosine_similarity(halved, unit).min() > 0.99999


def test_tokens_are_what_goes_into_the_last_block(make_clip: Callable[..., Any]) -> None:
    model = make_clip()
    seen: list[Tensor] = []
    model.visual.transformer.resblocks[-1].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    model.encode_image(pixels)
    _, rows = vit_features(model.visual, pixels, [LAST_BLOCK], torch.float32)
    assert torch.allclose(rows[LAST_BLOCK], seen[0], atol=1e-5)


@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_tokens_have_the_same_bits_whatever_is_asked_beside_them(
    make_clip: Callable[..., Any], pool_type: str
) -> None:
    visual = make_clip(pool_type=pool_type).visual
    pixels = torch.randn(4, 3, 32, 32)
    plain, _ = vit_features(visual, pixels, [], torch.float32)
    pooled, alone = vit_features(visual, pixels, [LAST_BLOCK], torch.float32)
    _, patches = vit_features(visual, pixels, VARIANTS, torch.float32)
    beside, rows = vit_features(visual, pixels, [*VARIANTS, LAST_BLOCK], torch.float32)
    assert torch.equal(pooled, plain)
    assert torch.equal(beside, plain)
    assert list(rows) == [*VARIANTS, LAST_BLOCK]
    assert torch.equal(rows[LAST_BLOCK], alone[LAST_BLOCK])
    assert all(torch.equal(rows[v], patches[v]) for v in VARIANTS)


def test_bf16_lowers_the_tower_and_leaves_the_block_as_it_was(
    make_clip: Callable[..., Any],
) -> None:
    before = last_block_of(make_clip(quick_gelu=True).visual, "Toy")
    lowered = wrapped(make_clip(quick_gelu=True), torch.bfloat16)
    found = lowered.last_block()
    assert found.digest == before.digest
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    pooled, rows = lowered.encode_images(pixels, [LAST_BLOCK])
    assert rows[LAST_BLOCK].dtype is torch.float32
    assert torch.cosine_similarity(found.encode(rows[LAST_BLOCK]), pooled).min() > 0.999


def test_a_step_on_the_tensors_changes_the_answers_and_not_the_backbone(
    make_clip: Callable[..., Any],
) -> None:
    block = last_block_of(make_clip().visual, "Toy")
    digest = block.digest
    tokens = torch.randn(2, 3, 17, 64)  # two tasks of three images
    before = block.forward(tokens)
    assert before.shape == (2, 3, 24)
    trained = {n: t.clone().requires_grad_() for n, t in block.tensors.items()}
    loss = block.forward(tokens, trained)[..., 0].sum()
    grads = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
    keys = slice(64, 128)  # the softmax does not see what is added to all keys
    for name, grad in grads.items():
        assert bool(grad.abs().sum() > 0), name
    assert bool(grads["attn.in_proj_bias"][keys].abs().max() < 1e-5)
    moved = {n: (t - 0.1 * grads[n]).detach() for n, t in trained.items()}
    assert not torch.allclose(block.forward(tokens, moved), before)
    assert block.digest == digest


def test_a_trained_block_goes_back_into_its_model(make_clip: Callable[..., Any]) -> None:
    model = make_clip()
    block = last_block_of(model.visual, "Toy")
    moved = {n: t + 0.01 * torch.randn_like(t) for n, t in block.tensors.items()}
    pixels = torch.randn(2, 3, 32, 32)
    _, rows = vit_features(model.visual, pixels, [LAST_BLOCK], torch.float32)
    expected = block.encode(rows[LAST_BLOCK], moved)
    last = model.visual.transformer.resblocks[-1]
    last.load_state_dict({n: t for n, t in moved.items() if n in last.state_dict()})
    model.visual.ln_post.load_state_dict(
        {n.removeprefix("ln_post."): t for n, t in moved.items() if n.startswith("ln_post")}
    )
    model.visual.proj.data = moved["proj"]
    assert torch.allclose(model.encode_image(pixels), expected, atol=1e-5)


def resnet() -> Any:
    vision = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64, "patch_size": None}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    return open_clip.model.CLIP(16, vision, text)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda clip: resnet(), "is no plain ViT of open_clip"),
        (lambda clip: clip(attentional_pool=True), "ends in an attention pool"),
        (lambda clip: clip(scale_attn=True), "has blocks with further norms"),
        (lambda clip: clip(timm_model_name="convnext_atto"), "is no plain ViT of open_clip"),
    ],
    ids=["ResNet", "attention pool", "NormFormer", "timm"],
)
def test_other_towers_are_refused_with_the_reason(
    make_clip: Callable[..., Any], make: Callable[[Any], Any], why: str
) -> None:
    with pytest.raises(BackboneError, match=f"tower of Toy {why}.*Only plain ViTs") as refused:
        last_block_of(make(make_clip).visual, "Toy")
    assert "tokens" in str(refused.value)
    assert "--" not in str(refused.value)


def test_a_backbone_without_tokens_refuses_to_encode_them(make_clip: Callable[..., Any]) -> None:
    backbone = wrapped(make_clip(attentional_pool=True))
    assert backbone.tokens == ()
    assert backbone.token_shape == (0, 0)
    with pytest.raises(BackboneError, match="ends in an attention pool"):
        backbone.encode_images(torch.zeros(1, 3, 32, 32), [LAST_BLOCK])
    with pytest.raises(BackboneError, match="ends in an attention pool"):
        component_specs(backbone, tokens=["last-block"])
    with pytest.raises(UnknownNameError, match="place of tokens of Toy"):
        spec_named("tokens.last-block", backbone)
    assert component_specs(backbone)[0][0].name == "global"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"heads": 3}, "3 heads cannot share"),
        ({"activation": "relu"}, "unknown activation"),
        ({"pool": "max"}, "unknown activation or pool"),
        ({"eps": 0.0}, "epsilon"),
        ({"proj": None}, "lacks the tensor proj"),
        ({"ln_1.bias": None}, "lacks the tensor ln_1.bias"),
        ({"extra": torch.zeros(2)}, "extra"),
        ({"ls_1.gamma": torch.zeros(64)}, "ls_2.gamma"),
        ({"ln_2.weight": torch.zeros(63)}, r"not float32 \[64\]"),
        ({"attn.in_proj_weight": torch.zeros(192, 64).half()}, "not float32"),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_are_refused(
    make_clip: Callable[..., Any], change: dict[str, Any], fault: str
) -> None:
    block = last_block_of(make_clip().visual, "Toy")
    settings = {k: v for k, v in change.items() if k in block.settings()}
    tensors = {**block.tensors, **{k: v for k, v in change.items() if k not in settings}}
    with pytest.raises(ValueError, match=fault):
        replace(block, tensors={n: t for n, t in tensors.items() if t is not None}, **settings)


def test_tokens_of_another_width_are_refused(make_clip: Callable[..., Any]) -> None:
    block = last_block_of(make_clip().visual, "Toy")
    with pytest.raises(UsageError, match=r"takes tokens \[... t 64\], got \[2, 5, 63\]"):
        block.forward(torch.zeros(2, 5, 63))


@pytest.mark.parametrize("tower", TOWERS)
def test_patches_of_the_tokens_are_the_vanilla_ones(
    make_clip: Callable[..., Any], tower: str
) -> None:
    visual = make_clip(**TOWERS[tower]).visual
    block = last_block_of(visual, "Toy")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, rows = vit_features(visual, pixels, ["vanilla", LAST_BLOCK], torch.float32)
    x, patches = block.with_patches(rows[LAST_BLOCK])
    torch.testing.assert_close(x, block.forward(rows[LAST_BLOCK]), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches, F.normalize(rows["vanilla"], dim=-1), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="takes tokens"):
        block.with_patches(rows[LAST_BLOCK][..., 1:])
