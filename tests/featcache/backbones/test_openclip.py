from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import pytest
import torch

from featcache.backbones.base import Backbone
from featcache.backbones.models import PreprocessConfig, build_model
from featcache.backbones.openclip import OpenClipBackbone
from featcache.backbones.registry import load_backbone
from featcache.errors import BackboneError, UnknownNameError

TIMM = {
    "embed_dim": 32,
    "vision_cfg": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "token",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def wrap(model: Any, size: int = 32, dtype: torch.dtype = torch.float32) -> OpenClipBackbone:
    return OpenClipBackbone(
        model,
        open_clip.SimpleTokenizer(context_length=16),
        name="Toy/8",
        architecture="Toy-B-8",
        activation="gelu",
        weights="random-0",
        preprocess=PreprocessConfig(image_size=size, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        device=torch.device("cpu"),
        compute_dtype=dtype,
    )


def test_it_is_a_backbone(make_clip: Callable[..., Any]) -> None:
    backbone: Backbone = wrap(make_clip())
    assert (backbone.dim, backbone.patches, backbone.image_size) == (24, 16, 32)
    assert backbone.variants == ("clearclip", "vanilla", "maskclip")
    assert backbone.logit_scale == pytest.approx(1 / 0.07)
    assert backbone.logit_bias == 0
    assert backbone.key.preprocessing == (
        "shortest bicubic 32 antialias; mean 0.5,0.5,0.5; std 0.2,0.2,0.2"
    )
    assert repr(backbone) == "OpenClipBackbone('Toy/8', device='cpu', compute='float32')"


def test_images_come_back_raw_in_float32(make_clip: Callable[..., Any]) -> None:
    model = make_clip()
    pixels = torch.randn(5, 3, 32, 32)
    expected = model.encode_image(pixels)
    rows, patches = wrap(model).encode_images(pixels, ["clearclip"])
    assert torch.allclose(rows, expected, atol=1e-5)
    assert patches["clearclip"].shape == (5, 16, 24)
    assert rows.dtype is patches["clearclip"].dtype is torch.float32
    assert not torch.allclose(rows.norm(dim=-1), torch.ones(5))


def test_texts_come_back_in_order_beyond_one_batch(
    make_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.backbones.openclip.TEXT_BATCH", 3)
    model = make_clip()
    texts = [f"a photo of {n} dogs" for n in range(7)]
    expected = model.encode_text(open_clip.SimpleTokenizer(context_length=16)(texts))
    backbone = wrap(model)
    assert torch.allclose(backbone.encode_texts(texts), expected, atol=1e-5)
    assert backbone.encode_texts([]).shape == (0, 24)


def test_texts_can_be_trained_on(make_clip: Callable[..., Any]) -> None:
    """Inference tensors cannot: the rows of texts must be plain ones."""
    rows = wrap(make_clip()).encode_texts(["a dog"])
    weight = torch.zeros(24, requires_grad=True)
    (gradient,) = torch.autograd.grad((rows @ weight).sum(), weight)
    assert torch.equal(gradient, rows[0])


def test_truncated_counts_what_the_context_cuts(make_clip: Callable[..., Any]) -> None:
    fits, too_long = "dog " * 14, "dog " * 15  # and two tokens for start and end of 16
    assert wrap(make_clip()).truncated([fits, too_long, "", too_long]) == 2


def test_truncated_knows_the_embedded_tokenizer() -> None:
    backbone = load_backbone("tiny", weights="random")
    assert backbone.truncated(["a moth", "a " * 30, "a " * 31]) == 1


def test_unknown_variant_lists_known_ones(make_clip: Callable[..., Any]) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'clearclip'"):
        wrap(make_clip()).encode_images(torch.zeros(1, 3, 32, 32), ["clearklip"])


def test_wrong_image_size_is_refused(make_clip: Callable[..., Any]) -> None:
    with pytest.raises(BackboneError, match="takes images of 32 x 32 px, got 40 x 40"):
        wrap(make_clip()).encode_images(torch.zeros(1, 3, 40, 40))


def test_a_pool_with_places_for_the_whole_map_says_patches_none() -> None:
    vision = {"timm_model_name": "resnet10t", "timm_pool": "abs_attn", "timm_proj": ""}
    model = build_model({**TIMM, "vision_cfg": {**vision, "image_size": 176}}, seed=0).eval()
    side = 32 * model.visual.head.pool.feat_size[0]
    pixels = torch.randn(2, 3, side, side)
    expected = model.encode_image(pixels)
    backbone = wrap(model, side)
    assert (backbone.patches, backbone.variants) == (0, ())
    rows, patches = backbone.encode_images(pixels)
    assert torch.allclose(rows, expected, atol=1e-5)
    assert patches == {}
    with pytest.raises(BackboneError, match="Use patches='none'"):
        backbone.encode_images(pixels, ["clearclip"])


def test_attentional_pool_gives_the_value_path(make_clip: Callable[..., Any]) -> None:
    model = make_clip(attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4)
    pixels = torch.randn(2, 3, 32, 32)
    expected = model.encode_image(pixels)
    backbone = wrap(model)
    assert (backbone.patches, backbone.variants) == (16, ("maskclip",))
    rows, patches = backbone.encode_images(pixels, ["maskclip"])
    assert torch.allclose(rows, expected, atol=1e-6)
    assert patches["maskclip"].shape == (2, 16, backbone.dim)
    with pytest.raises(BackboneError, match="as 'maskclip' only, not as 'clearclip'"):
        backbone.encode_images(pixels, ["clearclip"])


def test_timm_tower_gives_global_features_and_its_map() -> None:
    model = build_model(TIMM, seed=0).eval()
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.encode_image(pixels)
    backbone = wrap(model, 224)
    assert (backbone.patches, backbone.variants) == (196, ("vanilla",))
    assert 2.1 < backbone.gflops < 2.6  # DeiT-tiny: 1.26 G multiply-adds with attention's
    assert torch.allclose(backbone.encode_images(pixels)[0], expected, atol=1e-5)
    lowered = wrap(model, 224, torch.bfloat16).encode_images(pixels)[0]
    assert lowered.dtype is torch.float32
    assert torch.cosine_similarity(lowered, expected).min() > 0.999


def test_build_is_seeded_and_leaves_the_users_stream_alone(toy_config: dict[str, Any]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_model(toy_config, seed=s).visual.proj for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["ViT-B/32", "RN50"])
@pytest.mark.long
def test_real_architectures_keep_the_promises(name: str) -> None:
    """Global features as open_clip's; bf16 at cosine >= 0.999 always, >= 0.9999 on average."""
    torch.manual_seed(0)
    pixels = torch.randn(6, 3, 224, 224)
    exact = load_backbone(name, weights="random", compute="fp32", device="cpu")
    assert isinstance(exact, OpenClipBackbone)
    if name == "RN50":
        for key, parameter in exact._model.visual.named_parameters():
            if key.endswith("conv3.weight") and not parameter.any():
                parameter.normal_(0.0, 0.02)  # at first their norms' factor 0 is in them
    variants: Sequence[str] = exact.variants
    with torch.inference_mode():
        reference = exact._model.encode_image(pixels)
    rows, patches = exact.encode_images(pixels, variants)
    assert torch.allclose(rows, reference, atol=1e-5)
    assert all(p.shape == (6, 49, exact.dim) for p in patches.values())
    lowered = OpenClipBackbone(
        exact._model,
        exact._tokenizer,
        name=name,
        architecture=exact.key.architecture,
        activation="quick_gelu",
        weights="random-0",
        preprocess=PreprocessConfig(image_size=224, mean=exact.mean, std=exact.std),
        device=exact.device,
        compute_dtype=torch.bfloat16,
    )
    found, bf16_patches = lowered.encode_images(pixels, variants)
    cosine = torch.cosine_similarity(found, rows)
    assert cosine.min() >= 0.999
    assert cosine.mean() >= 0.9999
    for variant in variants:
        cosine = torch.cosine_similarity(bf16_patches[variant], patches[variant], dim=-1)
        assert cosine.min() >= 0.999
    if name == "RN50":
        with pytest.raises(BackboneError, match="Use patches='maskclip', or patches='none'"):
            exact.encode_images(pixels, ["clearclip"])
    published = {"ViT-B/32": 8.82, "RN50": 12.22}
    assert exact.gflops == pytest.approx(published[name], rel=0.04)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("compute", "floor"), [("fp32", 0.99999), ("bf16", 0.999)])
def test_cuda_agrees_with_the_cpu(compute: str, floor: float) -> None:
    pixels = torch.randn(8, 3, 224, 224)
    here = load_backbone("ViT-B/32", weights="random", device="cpu", compute="fp32")
    there = load_backbone("ViT-B/32", weights="random", device="cuda", compute=compute)
    rows, patches = here.encode_images(pixels, ["clearclip"])
    found, cuda_patches = there.encode_images(pixels, ["clearclip"])
    assert torch.cosine_similarity(found.cpu(), rows).min() >= floor
    cosine = torch.cosine_similarity(cuda_patches["clearclip"].cpu(), patches["clearclip"], dim=-1)
    assert cosine.min() >= floor
    texts = there.encode_texts(["a dog", "a cat"]).cpu()
    assert torch.cosine_similarity(texts, here.encode_texts(["a dog", "a cat"])).min() >= 0.99999
