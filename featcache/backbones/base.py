"""What a frozen encoder answers to, whatever library it came from."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.types import FeatureKey


@runtime_checkable
class Backbone(Protocol):
    """A frozen CLIP-like model: pixels or words in, vectors of one joint space out."""

    name: str
    """As the user typed it: ViT-B/16, tiny."""
    key: FeatureKey
    image_size: int
    """Side of the square input in pixels."""
    dim: int
    """Width d of the joint space."""
    patches: int
    """Patch tokens an image p; 0 where the tower has none that live in the joint space."""
    variants: tuple[str, ...]
    """Patch variants that this tower has, the one to take by default first; often none."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Channel statistics for inputs in [0, 1]."""
    resize_mode: str
    """shortest: shortest side to `image_size`, centre crop; squash: both sides, no crop; longest:
    longest side, padded with black around the centre."""
    interpolation: str
    """bicubic or bilinear, antialiased."""
    logit_scale: float
    logit_bias: float
    gflops: float
    """GFLOPs of one image through the image tower, 2 per multiply-add."""
    device: torch.device
    compute_dtype: torch.dtype
    """bfloat16 where the device computes it faster, else float32."""
    compiled: bool
    """Whether the image tower goes through torch.compile."""

    @property
    def compile_s(self) -> float:
        """Seconds that compiling took so far."""
        ...

    def encode_images(
        self, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str] = ()
    ) -> tuple[Float[Tensor, "b d"], dict[str, Float[Tensor, "b p d"]]]:
        """Encode normalised pixels: global features and, for each variant, projected patches.

        All un-normalised, float32. Global features always come from the vanilla path and do not
        depend on `variants`.

        Raises:
            BackboneError: If the tower has no patch tokens of such a variant.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Encode sentences, un-normalised, float32, in order; the end of long ones is cut off."""
        ...

    def truncated(self, texts: Sequence[str]) -> int:
        """Count the sentences that are longer than the text tower's context."""
        ...
