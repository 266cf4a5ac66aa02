"""Toy models in open_clip's registry: every path of a real backbone in milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import factory, pretrained
from open_clip.model import CLIP

VISION = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 16, "layers": 3}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
CONFIG = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}


@pytest.fixture
def toy_config() -> dict[str, Any]:
    return CONFIG


@pytest.fixture
def make_clip() -> Callable[..., Any]:
    """Build a random toy CLIP; keyword arguments go to its image tower."""

    def make(quick_gelu: bool = False, seed: int = 0, **vision: Any) -> Any:
        torch.manual_seed(seed)
        config = {**CONFIG, "vision_cfg": {**VISION, **vision}, "quick_gelu": quick_gelu}
        return CLIP(**config).eval().requires_grad_(False)

    return make


@pytest.fixture
def toy_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register Toy-B-8 with plain GELU, its QuickGELU sibling, and one for larger images."""
    large = {**CONFIG, "vision_cfg": {**VISION, "image_size": 48}}
    entry = {
        "url": "https://hub.invalid/toy.pt",
        "hf_hub": "nobody/toy/",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.3, 0.2, 0.1),
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    tags = {"plain": entry, "quick": {**entry, "quick_gelu": True}}
    for name, config in {
        "Toy-B-8": CONFIG,
        "Toy-B-8-quickgelu": {**CONFIG, "quick_gelu": True},
        "Toy-B-8-48": large,
    }.items():
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)
    monkeypatch.setitem(pretrained._PRETRAINED, "Toy-B-8", tags)
    monkeypatch.setitem(pretrained._PRETRAINED, "Toy-B-8-quickgelu", {"quick": tags["quick"]})


@pytest.fixture
def saved(tmp_path: Path, make_clip: Callable[..., Any]) -> tuple[Any, Path]:
    """A toy model with its state dict on disk."""
    model, path = make_clip(), tmp_path / "toy.pt"
    torch.save(model.state_dict(), path)
    return model, path
