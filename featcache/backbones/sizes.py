"""Other image sizes than a model was trained on, by interpolated position embeddings."""

from collections.abc import Mapping
from typing import Any

from featcache.backbones.names import image_size_of
from featcache.errors import BackboneError, UsageError
from featcache.wording import Argument

LARGEST = 4096
"""Most pixels of a side."""


def resized(config: Mapping[str, Any], side: int, *, name: str) -> Mapping[str, Any]:
    """Return the config of a model for square images of another size.

    Args:
        config: open_clip's config of the model.
        side: Pixels of the input, a multiple of the patch size.
        name: Name of the backbone, for errors.

    Raises:
        UsageError: If the side is no positive multiple of the patch size.
        BackboneError: If its tower is no plain ViT: its positions have no grid of their own, or
            are not learned, so that interpolating them is not known to be right.
    """
    vision = config["vision_cfg"]
    if side == image_size_of(config):
        return config
    if "timm_model_name" in vision or not isinstance(vision.get("layers", 12), int):
        raise BackboneError(
            f"{name} takes images of {image_size_of(config)} px only: position embeddings are "
            f"interpolated for the ViTs of open_clip, and this tower is another kind. Leave ",
            Argument("image_size"),
            " out, or choose a model of that size (`featcache backbones`).",
        )
    patch = int(vision.get("patch_size", 16))
    if not 0 < side <= LARGEST or side % patch:
        near = max(patch, min(LARGEST, round(side / patch) * patch))
        raise UsageError(
            f"The side of an image for {name} must be a multiple of {patch} up to {LARGEST}, got "
            f"{side}. Use e.g. ",
            Argument("image_size", near),
            ".",
        )
    return {**config, "vision_cfg": {**vision, "image_size": side}}
