"""The interface of every frozen encoder, whatever library it came from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from featcache.errors import BackboneError, CacheError
from featcache.last_block import LastBlock
from featcache.types import FeatureKey
from featcache.wording import Argument


@runtime_checkable
class Backbone(Protocol):
    """A frozen CLIP-like model: encodes images and texts into one joint space."""

    name: str
    """Name as the user typed it: ViT-B/16, tiny."""
    key: FeatureKey
    image_size: int
    """Side of the square input in pixels."""
    dim: int
    """Width d of the joint space."""
    patches: int
    """Patch tokens p per image; 0 if the tower has none in the joint space."""
    variants: tuple[str, ...]
    """Patch variants of this tower, the default first; empty for some towers."""
    tokens: tuple[str, ...]
    """Places in the tower whose tokens can be stored (last-block); empty for most families."""
    token_shape: tuple[int, int]
    """Tokens of an image, p and a class token, and their width w; zeros where there are none."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Channel statistics for inputs in [0, 1]."""
    resize_mode: str
    """shortest: resize the shortest side to `image_size`, then centre crop; squash: resize both
    sides, no crop; longest: resize the longest side, then pad with black."""
    interpolation: str
    """bicubic or bilinear, both antialiased."""
    logit_scale: float
    logit_bias: float
    gflops: float
    """GFLOPs of one forward pass of the image tower for one image, 2 per multiply-add."""
    tokenizer: str
    """sha256 of the tokenizer's files, if the user gave some; empty for the model's own."""
    lacks_texts: BackboneError | None
    """Why texts cannot be encoded on this machine; None if they can."""
    device: torch.device
    compute_dtype: torch.dtype
    """Type of the image tower: bfloat16 or float32."""
    compiled: bool
    """Whether the image tower is compiled with torch.compile."""

    @property
    def compile_s(self) -> float:
        """Seconds spent on compiling so far."""
        ...

    def encode_images(
        self, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str] = ()
    ) -> tuple[Float[Tensor, "b d"], dict[str, Float[Tensor, "b _ _"]]]:
        """Encode normalised pixels: global features and, for each variant, projected patches.

        All float32, not normalised. Global features always use standard attention and do not
        depend on `variants`, among which may be `tokens`: [b p+1 w], not projected.

        Raises:
            BackboneError: If the tower has no patch tokens of a requested variant.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Encode sentences in order: float32, not normalised; long ones are truncated.

        Raises:
            BackboneError: `lacks_texts`, if there is one.
        """
        ...

    def truncated(self, texts: Sequence[str]) -> int:
        """Count the sentences that exceed the context length of the text tower.

        Raises:
            BackboneError: `lacks_texts`, if there is one.
        """
        ...

    def image_tower(self) -> nn.Module:
        """Return the image tower in float32 as a module: normalised pixels -> features [b d].

        Raises:
            BackboneError: If the weights were lowered to another type.
        """
        ...

    def last_block(self) -> LastBlock:
        """Return the weights that make global features of the tokens `last-block`, float32.

        They are those of the weights file, whatever type the tower computes in.

        Raises:
            BackboneError: If the tower has no such tokens.
        """
        ...


def check_key(backbone: Backbone, key: FeatureKey, where: Path) -> None:
    """Refuse a backbone whose features are not those of a cache.

    Args:
        backbone: The backbone that is here.
        key: Key of the cache.
        where: Its folder, for the message.

    Raises:
        CacheError: If the keys differ.
    """
    if backbone.key != key:
        raise CacheError(
            f"{where} was made with other weights than {backbone.name} has here (key "
            f"{key.digest()}, not {backbone.key.digest()}). Name them with ",
            Argument("weights"),
            ".",
        )
