"""An image tower as a module of its own, without the text tower: what an export traces."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from featcache.backbones.patches import Reader


class ImageTower(nn.Module):
    """Normalised pixels [b 3 s s] -> features [b d] in float32, as `encode_images` gives them."""

    def __init__(self, model: Any, read: Reader | None, *, is_unit: bool) -> None:
        """Take a tower, whose weights are shared.

        Args:
            model: The visual part of an open_clip model; the whole model where `read` is None.
            read: How its features are read; None asks `encode_image`.
            is_unit: Whether `encode_image` of the model normalises.
        """
        super().__init__()
        self.visual = model if read is not None else model.visual
        self._read, self._is_unit = read, is_unit

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """Return global features, not normalised unless the model does so."""
        if self._read is None:
            features: Tensor = self.visual(pixels)
        else:
            features, _ = self._read(self.visual, pixels, (), torch.float32)
        return F.normalize(features, dim=-1) if self._is_unit else features
