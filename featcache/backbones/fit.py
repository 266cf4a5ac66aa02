"""Load weights into a model; every name and shape must match."""

import math
from typing import Any

from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from torch import Tensor

from featcache.backbones.weights import Weights
from featcache.errors import BackboneError
from featcache.wording import Argument, Part

_POSITIONS = ("positional_embedding", "pos_embed")
_IGNORED = ("num_batches_tracked", "embeddings.position_ids")  # do not affect features


def fit_weights(model: Any, weights: Weights, *, name: str, resize: bool = False) -> None:
    """Load all tensors of a file into a model.

    Args:
        model: An open_clip model.
        weights: Content of the file.
        name: Name of the backbone as the user typed it, for error messages.
        resize: Whether to interpolate the position embeddings of the image tower to its size.

    Raises:
        BackboneError: If names or shapes of the file and the model differ.
    """
    tensors = _modern(model, dict(weights.tensors))
    if resize:
        resize_pos_embed(tensors, model)
    state = model.state_dict()
    shapes = [k for k in state if k in tensors and tensors[k].shape != state[k].shape]
    missing = [k for k in state if k not in tensors and not k.endswith(_IGNORED)]
    unexpected = [k for k in tensors if k not in state and not k.endswith(_IGNORED)]
    if not missing and not unexpected and _only_positions(shapes):
        raise _wrong_size(tensors[shapes[0]], state[shapes[0]], model, weights, name)
    faults = [
        *(
            f"'{k}' is {list(tensors[k].shape)}, expected {list(state[k].shape)}"
            for k in shapes[:2]
        ),
        *(f"'{k}' is missing" for k in missing[:2]),
        *(f"'{k}' is unknown there" for k in unexpected[:2]),
    ]
    if faults:
        total = len(shapes) + len(missing) + len(unexpected)
        raise BackboneError(
            f"The weights in {weights.path} are not those of {name}: {'; '.join(faults)} "
            f"({total} such tensors). ",
            _advice(weights),
        )
    model.load_state_dict({k: tensors[k] for k in state if k in tensors}, strict=False)


def _modern(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of older or foreign checkpoints, as open_clip does."""
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    tensors = convert_state_dict(model, tensors)
    if not (hasattr(model, "text") or hasattr(model, "token_embedding")):  # its image side alone
        tensors = {k: v for k, v in tensors.items() if not k.startswith("text.")}
    for name in ("logit_scale", "logit_bias"):  # shape () in some checkpoints, (1,) in others
        scalar = getattr(model, name, None)
        if scalar is not None and name in tensors and tensors[name].numel() == scalar.numel():
            tensors[name] = tensors[name].reshape(scalar.shape)
    return tensors


def _only_positions(shapes: list[str]) -> bool:
    return len(shapes) == 1 and "visual" in shapes[0] and shapes[0].endswith(_POSITIONS)


def _wrong_size(
    loaded: Tensor, expected: Tensor, model: Any, weights: Weights, name: str
) -> BackboneError:
    """Compute image sizes from position embeddings: a grid of patches and one class token."""
    size = model.visual.image_size[0] if _is_pair(model) else model.visual.image_size
    grid = math.isqrt(expected.shape[-2] - 1)
    trained = size // grid * math.isqrt(loaded.shape[-2] - 1)
    return BackboneError(
        f"The weights in {weights.path} were trained on {trained} px images and {name} takes "
        f"{size} px: their position embeddings have {loaded.shape[-2]} rows, not "
        f"{expected.shape[-2]}. Choose the model of that size with ",
        Argument("backbone"),
        f" (`featcache backbones` lists sizes), or give weights for {size} px.",
    )


def _is_pair(model: Any) -> bool:
    return isinstance(model.visual.image_size, tuple)


def _advice(weights: Weights) -> Part:
    if weights.openai:
        return f"They are OpenAI's {weights.openai.removesuffix('-quickgelu')}; name that one."
    backbone, weights_file = Argument("backbone"), Argument("weights")
    return ("Give the ", backbone, " that they were trained for, or other ", weights_file, ".")
