"""What all towers share: types, the attention of one block and the precision to compute in."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Features = tuple[Float[Tensor, "b d"], dict[str, Float[Tensor, "b _ _"]]]
"""Global features, and the patches [b p d] of each requested variant or the tokens [b p+1 w]."""
Reader = Callable[[Any, Tensor, Sequence[str], torch.dtype], Features]
"""(visual, pixels, variants, dtype) -> features."""


def split(x: Tensor, heads: int) -> Tensor:
    """Split rows [b n w] into heads [b heads n e]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(e)) v, each [b heads n e], in the type of `v`."""
    dtype = v.dtype  # norms return queries and keys as float32
    return F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v)


def compute_in(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Compute matrix products of the block in `dtype`; float32 leaves everything as it is."""
    enabled = dtype is not torch.float32
    kind = "cpu" if device.type == "meta" else device.type  # only shapes there
    return torch.autocast(kind, dtype=dtype if enabled else None, enabled=enabled)
