"""Functions of torch without a public name: here alone, and each may be missing.

Without them everything is computed the same, only slower.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FUSED_DEVICES = ("cpu", "cuda")
"""Where torch has optimisers that move everything in one pass over memory."""

_functorch = getattr(torch._C, "_functorch", None)
_batched: Callable[[Tensor], bool] | None = getattr(_functorch, "is_batchedtensor", None)
_stack: Callable[[], object] | None = getattr(_functorch, "peek_interpreter_stack", None)
_kernels: dict[str, Callable[..., None]] = {
    name: kernel
    for name in ("adam", "adamw", "sgd")
    if (kernel := getattr(torch, f"_fused_{name}_", None)) is not None
}


def may_be_stacked(tensor: Tensor) -> bool:
    """Tell whether a tensor stands for several inside `torch.func.vmap`; True if nobody knows."""
    return True if _batched is None else _batched(tensor)


def may_be_inside() -> bool:
    """Tell whether `torch.func.vmap` or its like is at work; True if nobody knows."""
    return True if _stack is None else _stack() is not None


def fused(name: str, p: Tensor) -> Callable[..., Any] | None:
    """Return torch's fused optimiser for a parameter, or None where it has none.

    Args:
        name: adam, adamw or sgd.
        p: The parameter.
    """
    if not p.is_contiguous() or p.device.type not in FUSED_DEVICES:
        return None
    return _kernels.get(name)
