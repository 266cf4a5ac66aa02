"""open_clip models from their configs: building without weights, and counting FLOPs."""

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from torch.overrides import TorchFunctionMode

from featcache.backbones.hub import hub_file, offline_reason
from featcache.backbones.tokens.choice import lacking_texts
from featcache.errors import BackboneError
from featcache.limits import WEIGHTS
from featcache.wording import Argument

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
"""Text tower that is built and dropped where only images are encoded."""
RATIO, SMALL = 8, 64 << 20
"""Most bytes of a float32 model for each byte of its weights file, and beside that."""
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
        """Return `FeatureKey.preprocessing` of this preprocessing."""
        mean, std = (",".join(repr(float(x)) for x in c) for c in (self.mean, self.std))
        head = f"{self.resize_mode} {self.interpolation} {self.image_size}"
        return f"{head} antialias; mean {mean}; std {std}"


def build_model(config: Mapping[str, Any], *, seed: int | None) -> Any:
    """Build a model from an open_clip config without downloading weights.

    Args:
        config: Config from `open_clip.get_model_config`.
        seed: Seed of random weights; None skips initialisation because weights are loaded next
            (initialising a ViT-L/14 takes 9 s).

    Raises:
        TextsMissingError: If its text tower is one of the package transformers, and the package or
            the tower's config is missing; `without_texts` has a config without that tower.
        BackboneError: If it cannot be built.
    """
    arguments = deepcopy(dict(config))
    text_model = arguments["text_cfg"].get("hf_model_name")
    if text_model and (reason := _missing(text_model)):
        raise lacking_texts(f"the text model {text_model}", reason)
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
            model = kind(**arguments)
        except (RuntimeError, OSError, ImportError, ValueError) as error:
            if text_model:
                raise lacking_texts(f"the text model {text_model}", error) from error
            raise BackboneError(
                f"open_clip cannot build this model ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:160]}). Check its config, or choose another with ",
                Argument("backbone"),
                ".",
            ) from error
    if arguments["text_cfg"] == _NO_TEXT:
        del model.text
    return model


def without_texts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the image side alone; the model has no `text`."""
    kept = {k: v for k, v in config.items() if k not in ("text_cfg", "multimodal_cfg")}
    vision = {k: v for k, v in config["vision_cfg"].items() if k != "output_tokens"}  # for CoCa
    return {**kept, "vision_cfg": vision, "text_cfg": _NO_TEXT, "custom_text": True}


def _missing(text_model: str) -> str | None:
    """Return why a text model of transformers cannot be built here; None if it may be."""
    if find_spec("transformers") is None:
        return "no package transformers"
    return None if hub_file(text_model, "config.json") else offline_reason(text_model)


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


def parameters(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Count the parameters of the image tower and of the whole model, without building its tensors.

    None if a tower cannot be built on this machine, or not on torch's meta device.
    """
    try:
        with torch.device("meta"):
            model = build_model(config, seed=None)
    except (BackboneError, NotImplementedError, RuntimeError):
        return None
    image, whole = (sum(p.numel() for p in m.parameters()) for m in (model.visual, model))
    return image, whole


def weights_size(config: Mapping[str, Any]) -> str:
    """Estimate the size of a model's weights file in float32; empty if it cannot be known."""
    counts = parameters(config)
    if counts is None:
        return ""
    megabytes = counts[1] * 4 / 1e6
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def check_fits(config: Mapping[str, Any], file: int | None, *, what: str) -> None:
    """Refuse a config whose model is far larger than the weights beside it.

    Args:
        config: open_clip's config, from a stranger.
        file: Bytes of the weights; None for random ones.
        what: Name of the model in the error.

    Raises:
        BackboneError: If it is, so that building it could exhaust the memory.
    """
    limit = WEIGHTS.value() if file is None else RATIO * file + SMALL
    counts = parameters(config) or parameters(without_texts(config))
    if counts is not None and counts[1] * 4 > limit:
        raise BackboneError(
            f"The config of {what} describes a model of {counts[1] * 4} bytes and its weights "
            f"allow {limit}. One of the two files is wrong; copy both again."
        )


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
