"""An open_clip model as a backbone, without a tokenizer."""

from typing import Any

import torch

from featcache.backbones.models import PreprocessConfig
from featcache.backbones.openclip import OpenClipBackbone
from featcache.errors import TextsMissingError


def wrapped(model: Any, dtype: torch.dtype = torch.float32) -> OpenClipBackbone:
    """Wrap a toy model with inputs of 32 pixels."""
    return OpenClipBackbone(
        model,
        TextsMissingError("no texts"),
        name="Toy",
        architecture="Toy",
        activation="gelu",
        weights="random-0",
        preprocess=PreprocessConfig(image_size=32, mean=(0.5,) * 3, std=(0.2,) * 3),
        device=torch.device("cpu"),
        compute_dtype=dtype,
    )
