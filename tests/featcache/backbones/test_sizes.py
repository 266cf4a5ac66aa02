"""Image sizes that a model was not trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from featcache.backbones.registry import load_backbone
from featcache.errors import BackboneError, UsageError


@pytest.mark.parametrize("side", [24, 48])
def test_other_sizes_are_open_clips_interpolation(
    toy_names: None,
    toy_config: dict[str, Any],
    saved: tuple[Any, Path],
    side: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, path = saved
    expected = open_clip.create_model("Toy-B-8", pretrained=str(path), force_image_size=side)
    backbone = load_backbone(
        "Toy-B-8", weights=str(path), image_size=side, device="cpu", compute="fp32"
    )
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        rows = expected.eval().encode_image(pixels)
    found, patches = backbone.encode_images(pixels, ["vanilla"])
    torch.testing.assert_close(found, rows, atol=1e-5, rtol=1e-5)
    assert backbone.patches == patches["vanilla"].shape[1] == (side // 8) ** 2
    assert backbone.key.image_size == side
    assert f" {side} antialias" in backbone.key.preprocessing
    usual = load_backbone("Toy-B-8", weights=str(path), device="cpu", compute="fp32")
    same = load_backbone("Toy-B-8", weights=str(path), device="cpu", image_size=32, compute="fp32")
    assert same.key == usual.key != backbone.key


@pytest.mark.parametrize(
    ("name", "side", "error", "message"),
    [
        ("ViT-B/16", 225, UsageError, r"a multiple of 16 up to 4096, got 225. .*image_size=224"),
        ("ViT-B/16", 5000, UsageError, "image_size=4096"),
        ("ViT-B/16", 0, UsageError, "image_size=16"),
        ("RN50", 288, BackboneError, "takes images of 224 px only"),
        ("ViT-B-16-SigLIP", 256, BackboneError, "takes images of 224 px only"),
    ],
)
def test_sizes_that_a_tower_cannot_take_are_refused(
    name: str, side: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_backbone(name, weights="random", image_size=side, device="cpu")


def test_weights_of_another_size_are_still_refused_unasked(
    toy_names: None, saved: tuple[Any, Path], make_clip: Callable[..., Any]
) -> None:
    with pytest.raises(BackboneError, match="trained on 32 px images and Toy-B-8-48 takes 48 px"):
        load_backbone("Toy-B-8-48", weights=str(saved[1]), device="cpu")
