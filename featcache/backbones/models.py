"""open_clip models from their configs: built without weights, or only counted."""

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

_DRAWS = ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How an image becomes the square input of a model."""

    image_size: int
    """Pixels a side."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"

    def __str__(self) -> str:
        """Write the line that stands in the key of every cache."""
        mean, std = (",".join(repr(float(x)) for x in c) for c in (self.mean, self.std))
        head = f"{self.resize_mode} {self.interpolation} {self.image_size}"
        return f"{head} antialias; mean {mean}; std {std}"


def build_model(config: Mapping[str, Any], *, seed: int | None) -> Any:
    """Build a model from an open_clip config; nothing is fetched.

    Args:
        config: What `open_clip.get_model_config` returns.
        seed: Of random weights; None leaves memory as it is, for weights that follow at once
            (drawing numbers to throw away takes 9 s of a ViT-L/14).

    Raises:
        BackboneError: If a part of it needs a package or a file that is not here.
    """
    own = deepcopy(dict(config))
    custom = own.pop("custom_text", False) or "hf_model_name" in own["text_cfg"]
    if "timm_model_name" in own["vision_cfg"]:
        own["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in own["text_cfg"]:
        own["text_cfg"]["hf_model_pretrained"] = False
    kind = CoCa if custom and "multimodal_cfg" in own else CustomTextCLIP if custom else CLIP
    with torch.random.fork_rng(devices=[]), _Undrawn() if seed is None else nullcontext():
        torch.manual_seed(seed or 0)
        try:
            return kind(**own)
        except (RuntimeError, OSError, ImportError, ValueError) as error:
            raise _needs(config, error) from error


def build_tokenizer(architecture: str, config: Mapping[str, Any]) -> Any:
    """Return open_clip's tokenizer of an architecture.

    Raises:
        BackboneError: If it needs a package or a file that is not here.
    """
    try:
        return open_clip.get_tokenizer(architecture)
    except Exception as error:  # transformers and the hub's client fail in many ways
        raise _needs(config, error) from error


def config_gflops(config: Mapping[str, Any]) -> float | None:
    """Count the GFLOP of one image from the config of a ViT; None for other towers."""
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
    """Count the GFLOP of one image through a ViT, 2 per multiply-add, norms left out."""
    n = patches + 1
    block = (4 + 2 * mlp_ratio) * n * width**2 + 2 * n**2 * width
    total = layers * block + patches * 3 * patch_size**2 * width + width * dim
    return 2 * total / 1e9


def has_patches(config: Mapping[str, Any]) -> bool:
    """Tell from a config whether `patches.variants_of` the built tower names any."""
    vision = config["vision_cfg"]
    pooled = vision.get("attentional_pool") or vision.get("final_ln_after_pool")
    return "timm_model_name" not in vision and not pooled


def weights_size(config: Mapping[str, Any]) -> str:
    """Estimate a model's weights file, four bytes a parameter; empty where nothing tells."""
    try:
        with torch.device("meta"):
            model = build_model(config, seed=None)
    except (BackboneError, NotImplementedError, RuntimeError):
        return ""
    megabytes = sum(p.numel() for p in model.parameters()) * 4 / 1e6
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


class _Undrawn(TorchFunctionMode):
    """Skip every random initialisation inside."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.randn:
            return torch.empty(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _needs(config: Mapping[str, Any], error: Exception) -> BackboneError:
    text = config["text_cfg"]
    source = text.get("hf_model_name") or text.get("hf_tokenizer_name") or "the model hub"
    reason = " ".join(str(error).split())[:160]
    return BackboneError(
        f"This backbone's text side needs the package transformers and files of {source}, and they "
        f"could not be had ({type(error).__name__}: {reason}). Run `pip install transformers` and "
        f"try once with network, or choose a backbone without them such as ViT-B/16."
    )
