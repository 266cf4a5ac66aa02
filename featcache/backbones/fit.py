"""Put tensors into a model exactly, or say in one sentence why they do not belong there."""

import math
from typing import Any

from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from featcache.backbones.weights import Weights
from featcache.errors import BackboneError

_POSITIONS = ("positional_embedding", "pos_embed")
_IGNORED = ("num_batches_tracked", "embeddings.position_ids")  # say nothing about features


def fit_weights(model: Any, weights: Weights, *, name: str) -> None:
    """Load all tensors of a file into all parameters of a model.

    Args:
        model: An open_clip model.
        weights: What to load.
        name: The backbone as the user calls it, for the errors.

    Raises:
        BackboneError: If a name or a shape on either side has no partner on the other.
    """
    tensors = _modern(model, dict(weights.tensors))
    own = model.state_dict()
    same_name = tensors.keys() & own.keys()
    shapes = [k for k in own if k in same_name and tensors[k].shape != own[k].shape]
    missing = [k for k in own if k not in tensors and not k.endswith(_IGNORED)]
    unexpected = [k for k in tensors if k not in own and not k.endswith(_IGNORED)]
    if not missing and not unexpected and _only_positions(shapes):
        raise BackboneError(_wrong_size(tensors[shapes[0]], own[shapes[0]], model, weights, name))
    faults = [
        *(f"'{k}' is {list(tensors[k].shape)}, expected {list(own[k].shape)}" for k in shapes[:2]),
        *(f"'{k}' is missing" for k in missing[:2]),
        *(f"'{k}' is unknown there" for k in unexpected[:2]),
    ]
    if faults:
        total = len(shapes) + len(missing) + len(unexpected)
        raise BackboneError(
            f"The weights in {weights.path} are not those of {name}: {'; '.join(faults)} "
            f"({total} such tensors). {_advice(weights)}"
        )
    model.load_state_dict({k: tensors[k] for k in own if k in tensors}, strict=False)


def _modern(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename what older or foreign checkpoints call otherwise, as open_clip does."""
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    tensors = convert_state_dict(model, tensors)
    for name in ("logit_scale", "logit_bias"):  # a scalar in some, one row in others
        own = getattr(model, name, None)
        if own is not None and name in tensors and tensors[name].numel() == own.numel():
            tensors[name] = tensors[name].reshape(own.shape)
    return tensors


def _only_positions(shapes: list[str]) -> bool:
    return len(shapes) == 1 and "visual" in shapes[0] and shapes[0].endswith(_POSITIONS)


def _wrong_size(theirs: Tensor, ours: Tensor, model: Any, weights: Weights, name: str) -> str:
    """Translate two position embeddings into pixels: a grid of patches and one class token."""
    size = model.visual.image_size[0] if _is_pair(model) else model.visual.image_size
    grid = math.isqrt(ours.shape[-2] - 1)
    trained = size // grid * math.isqrt(theirs.shape[-2] - 1)
    return (
        f"The weights in {weights.path} were trained on {trained} px images and {name} takes "
        f"{size} px: their position embeddings have {theirs.shape[-2]} rows, not "
        f"{ours.shape[-2]}. Choose the model of that size with --backbone (`featcache backbones` "
        f"lists sizes), or give weights for {size} px."
    )


def _is_pair(model: Any) -> bool:
    return isinstance(model.visual.image_size, tuple)


def _advice(weights: Weights) -> str:
    if weights.openai:
        return f"They are OpenAI's {weights.openai.removesuffix('-quickgelu')}; name that one."
    return "Give the --backbone that they were trained for, or other --weights."
