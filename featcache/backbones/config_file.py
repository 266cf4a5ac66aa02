"""open_clip_config.json of a folder or a hub repository, checked before anything is built from it.

It comes from strangers. Every entry must be known, of its type and within its bound; a timm tower
must be one of timm's own models and a text model of transformers one that open_clip's configs
name, so that nothing is fetched from a place that the file chooses.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from featcache.backbones.hub import NAME
from featcache.errors import BackboneError
from featcache.limits import CONFIG
from featcache.paths import read_regular

CONFIG_FILE = "open_clip_config.json"

Check = Callable[[Any], bool]


def _whole(least: int, most: int) -> Check:
    return lambda v: type(v) is int and least <= v <= most


def _number(least: int | float, most: int | float) -> Check:
    return lambda v: type(v) in (int, float) and math.isfinite(v) and least <= v <= most


def _flag(value: Any) -> bool:
    return type(value) is bool


def _one_of(*choices: Any) -> Check:
    return lambda v: type(v) in {type(c) for c in choices} and v in choices


def _side(value: Any) -> bool:
    sides = value if isinstance(value, list) else [value, value]
    return len(sides) == 2 and sides[0] == sides[1] and _whole(1, 4096)(sides[0])


def _layers(value: Any) -> bool:
    stages = value if isinstance(value, list) else [value]
    return len(stages) in (1, 4) and all(_whole(1, 256)(n) for n in stages)


def _three(least: int | float, most: int | float) -> Check:
    def check(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(map(_number(least, most), value))

    return check


def _optional(check: Check) -> Check:
    return lambda v: v is None or check(v)


def _table(**checks: Check) -> Check:
    return lambda v: isinstance(v, dict) and all(k in checks and checks[k](e) for k, e in v.items())


def _hub_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(rf"{NAME}(/{NAME})?", value))


def _timm_model(value: Any) -> bool:
    import timm

    return isinstance(value, str) and bool(re.fullmatch(r"\w+", value)) and timm.is_model(value)


@cache
def _text_models() -> frozenset[str]:
    import open_clip

    configs = (open_clip.get_model_config(name) for name in open_clip.list_models())
    return frozenset(c["text_cfg"].get("hf_model_name", "") for c in configs) - {""}


_SHARED: dict[str, Check] = {
    "layers": _layers,
    "width": _whole(1, 16_384),
    "mlp_ratio": _number(0.1, 32),
    "ls_init_value": _optional(_number(0, 10)),
    "final_ln_after_pool": _flag,
    "output_tokens": _flag,
    "act_kwargs": _optional(_table(approximate=_one_of("none", "tanh"))),
    "norm_kwargs": _optional(_table(eps=_number(0, 1))),
    "block_type": _optional(_one_of("default", "custom")),
    "qk_norm": _flag,
    "scaled_cosine_attn": _flag,
    "scale_heads": _flag,
    "scale_attn_inner": _flag,
    "scale_attn": _flag,
    "scale_fc": _flag,
}
_VISION: dict[str, Check] = {
    **_SHARED,
    "head_width": _whole(1, 4096),
    "patch_size": _optional(_whole(1, 512)),
    "image_size": _side,
    "patch_dropout": _number(0, 1),
    "attentional_pool": lambda v: _flag(v) or v in ("parallel", "cascade"),
    "attn_pooler_queries": _whole(1, 4096),
    "attn_pooler_heads": _whole(1, 512),
    "no_ln_pre": _flag,
    "pos_embed_type": _one_of("learnable", "sin_cos_2d"),
    "pool_type": _one_of("tok", "avg", "none"),
    "timm_model_name": _timm_model,
    "timm_model_pretrained": _flag,
    "timm_pool": _one_of("", "avg", "max", "token", "map", "abs_attn", "rot_attn", "none"),
    "timm_proj": _optional(_one_of("", "linear", "mlp", "none")),
    "timm_proj_bias": _flag,
    "timm_drop": _number(0, 1),
    "timm_drop_path": _optional(_number(0, 1)),
}
_TEXT: dict[str, Check] = {
    **_SHARED,
    "context_length": _whole(1, 4096),
    "vocab_size": _whole(1, 2_000_000),
    "hf_tokenizer_name": _hub_name,
    "tokenizer_kwargs": _optional(
        _table(clean=_one_of("whitespace", "lower", "canonicalize"), strip_sep_token=_flag)
    ),
    "heads": _whole(1, 512),
    "embed_cls": _flag,
    "pad_id": _whole(0, 2_000_000),
    "eos_id": _whole(0, 2_000_000),
    "no_causal_mask": _flag,
    "pool_type": _one_of("first", "last", "argmax", "eos", "none"),
    "proj_bias": _flag,
    "proj_type": _one_of("linear", "none"),
    "hf_model_name": lambda v: isinstance(v, str) and v in _text_models(),
    "hf_model_pretrained": _flag,
    "hf_proj_type": _optional(_one_of("", "linear", "mlp")),
    "hf_pooler_type": _optional(
        _one_of("cls_pooler", "mean_pooler", "max_pooler", "cls_last_hidden_state_pooler")
    ),
}
_DECODER: dict[str, Check] = {
    **_TEXT,
    "dim_head": _whole(1, 4096),
    "n_queries": _whole(1, 4096),
    "attn_pooler_heads": _whole(1, 512),
}
_MODEL: dict[str, Check | dict[str, Check]] = {
    "embed_dim": _whole(1, 16_384),
    "vision_cfg": _VISION,
    "text_cfg": _TEXT,
    "multimodal_cfg": _DECODER,
    "quick_gelu": _flag,
    "custom_text": _flag,
    "init_logit_scale": _number(-100, 100),
    "init_logit_bias": _optional(_number(-1000, 1000)),
}
_PREPROCESS: dict[str, Check | dict[str, Check]] = {
    "size": _side,
    "mode": _one_of("RGB"),
    "mean": _three(-10, 10),
    "std": _three(1e-6, 10),
    "interpolation": _one_of("bicubic", "bilinear"),
    "resize_mode": _one_of("shortest", "longest", "squash"),
    "fill_color": _one_of(0),
}


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a config file.

    Returns:
        open_clip's config of the model, and its preprocessing as far as the file has it.

    Raises:
        BackboneError: If it cannot be read, or has an entry that is unknown or out of range.
    """
    try:
        value = json.loads(read_regular(path, CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(
            f"{path} cannot be read as JSON ({getattr(error, 'strerror', None) or error}). Copy it "
            f"again from where the model is published."
        ) from error
    if not isinstance(value, dict) or not isinstance(value.get("model_cfg"), dict):
        raise BackboneError(f"{path} has no model_cfg; expected the file that open_clip writes.")
    if unknown := set(value) - {"model_cfg", "preprocess_cfg"}:
        raise BackboneError(f"{path} has an unknown entry '{min(unknown)}'. Remove it.")
    model, preprocess = value["model_cfg"], value.get("preprocess_cfg", {})
    for name in ("embed_dim", "vision_cfg", "text_cfg"):
        if name not in model:
            raise BackboneError(f"{path} has no model_cfg.{name}, which every model has.")
    _check(path, "model_cfg", model, _MODEL)
    _check(path, "preprocess_cfg", preprocess, _PREPROCESS)
    size, trained = preprocess.get("size"), model["vision_cfg"].get("image_size", 224)
    if size is not None and _one(size) != _one(trained):
        raise BackboneError(
            f"{path} resizes images to {_one(size)} px and its model takes {_one(trained)} px. "
            f"Make preprocess_cfg.size and model_cfg.vision_cfg.image_size equal."
        )
    return model, {k: v for k, v in preprocess.items() if k not in ("size", "mode", "fill_color")}


def _one(side: Any) -> int:
    return int(side[0] if isinstance(side, list) else side)


def _check(path: Path, where: str, value: Any, checks: Mapping[str, Any]) -> None:
    if not isinstance(value, dict):
        raise BackboneError(f"{path} has a {where} that is no JSON object.")
    for name, entry in value.items():
        check = checks.get(name)
        if check is None:
            raise BackboneError(
                f"{path} has an unknown entry '{where}.{name}'. Remove it if it is a mistake; "
                f"otherwise this model needs a later version of open_clip than is supported."
            )
        if isinstance(check, dict):
            _check(path, f"{where}.{name}", entry, check)
        elif not check(entry):
            shown = json.dumps(entry)[:80]
            raise BackboneError(
                f"{path} has {where}.{name} = {shown}, which is not a value that open_clip's "
                f"models have. Correct it, or copy the file again."
            )
