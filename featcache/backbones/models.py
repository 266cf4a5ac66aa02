"""open_clip models from their configs: building without weights, and counting FLOPs."""

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from torch.overrides import TorchFunctionMode

from featcache.errors import BackboneError

_INITIALISERS = ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """Preprocessing of a model as published: size, normalisation and resampling."""

    image_size: int
    """Side of the square input in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"

    def __str__(self) -> str:
        """Return the line that the key of a cache records."""
        mean, std = (",".join(repr(float(x)) for x in c) for c in (self.mean, self.std))
        head = f"{self.resize_mode} {self.interpolation} {self.image_size}"
        return f"{head} antialias; mean {mean}; std {std}"


def build_model(config: Mapping[str, Any], *, seed: int | None) -> Any:
    """Build a model from an open_clip config without downloading anything.

    Args:
        config: Config from `open_clip.get_model_config`.
        seed: Seed of random weights; None skips initialisation because weights are loaded next
            (initialising a ViT-L/14 takes 9 s).

    Raises:
        BackboneError: If a part of it needs a package or a file that is missing.
    """
    arguments = deepcopy(dict(config))
    custom = arguments.pop("custom_text", False) or "hf_model_name" in arguments["text_cfg"]
    if "timm_model_name" in arguments["vision_cfg"]:
        arguments["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in arguments["text_cfg"]:
        arguments["text_cfg"]["hf_model_pretrained"] = False
    kind: Any = CustomTextCLIP if custom else CLIP
    if custom and "multimodal_cfg" in arguments:
        kind = CoCa
    with torch.random.fork_rng(devices=[]), _NoInitialisation() if seed is None else nullcontext():
        torch.manual_seed(seed or 0)
        try:
            return kind(**arguments)
        except (RuntimeError, OSError, ImportError, ValueError) as error:
            raise _text_error(config, error) from error


def build_tokenizer(architecture: str, config: Mapping[str, Any]) -> Any:
    """Return the open_clip tokenizer of an architecture.

    Raises:
        BackboneError: If it needs a package or a file that is missing.
    """
    try:
        return open_clip.get_tokenizer(architecture)
    except Exception as error:  # transformers and the hub's client fail in many ways
        raise _text_error(config, error) from error


def config_gflops(config: Mapping[str, Any]) -> float | None:
    """Count the GFLOPs of one image from the config of a ViT; None for other towers."""
    vision = config["vision_cfg"]
    layers = vision.get("layers", 12)
    if "timm_model_name" in vision or not isinstance(layers, int):
        return None
    patch_size = int(vision.get("patch_size", 16))
    return vit_gflops(
        width=vision.get("width", 768),
        layers=layers,
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        patches=(int(vision.get("image_size", 224)) // patch_size) ** 2,
        patch_size=patch_size,
        dim=config["embed_dim"],
    )


def vit_gflops(
    *, width: int, layers: int, mlp_ratio: float, patches: int, patch_size: int, dim: int
) -> float:
    """Count the GFLOPs of one image through a ViT, 2 per multiply-add, without norms."""
    n = patches + 1
    block = (4 + 2 * mlp_ratio) * n * width**2 + 2 * n**2 * width
    total = layers * block + patches * 3 * patch_size**2 * width + width * dim
    return 2 * total / 1e9


def has_patches(config: Mapping[str, Any]) -> bool:
    """Tell from a config whether the built tower will have patch variants."""
    return config["vision_cfg"].get("timm_pool") not in ("abs_attn", "rot_attn")


def weights_size(config: Mapping[str, Any]) -> str:
    """Estimate the size of a model's weights file in float32; empty if it cannot be known."""
    try:
        with torch.device("meta"):
            model = build_model(config, seed=None)
    except (BackboneError, NotImplementedError, RuntimeError):
        return ""
    megabytes = sum(p.numel() for p in model.parameters()) * 4 / 1e6
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


class _NoInitialisation(TorchFunctionMode):
    """Skip every random initialisation in the block."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.randn:
            return torch.empty(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _INITIALISERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _text_error(config: Mapping[str, Any], error: Exception) -> BackboneError:
    text = config["text_cfg"]
    source = text.get("hf_model_name") or text.get("hf_tokenizer_name") or "the model hub"
    reason = " ".join(str(error).split())[:160]
    return BackboneError(
        f"This backbone's text side needs the package transformers and files of {source}, and they "
        f"could not be had ({type(error).__name__}: {reason}). Run `pip install transformers` and "
        f"try once with network, or choose a backbone without them such as ViT-B/16."
    )
