"""LoRA in the attention of the last block, on cached tokens.

    W_m'  = W_m + scale B_m A_m,   m = q, k, v                                           (1)
    x, p  = f(h), the block of `featcache.last_block` with W' in the place of W          (2)

    h [t w] tokens of an image before the block      W_q, W_k, W_v [w w], frozen
    A_m [r w], B_m [w r], trained; B starts at 0: f is the backbone's block
    x [d] global feature, unit                       p [t-1 d] vanilla patches, unit

A head keeps the tensors of its block, W' among them, and what of the block is no tensor (`Shape`),
so that it answers tokens without a model.

Reference: Hu et al., LoRA, ICLR 2022, arXiv:2106.09685; on q, k and v of CLIP: Zanella and Ben
Ayed, CLIP-LoRA, CVPR Workshops 2024, arXiv:2405.18541.
Source: (1) paper, its scale alpha / r as one number; the last block alone is ours.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from featcache.errors import HeadError, MissingComponentError
from featcache.last_block import ACTIVATIONS, POOLS, LastBlock
from heads.contract.rows import Kind, LazyRows, TaskView, Tensors

TOKENS = Kind("tokens", "last-block")
PREFIX = "block."
"""What names of the tensors of a block begin with among those of a method."""
ADAPTED = "attn.in_proj_weight"
"""Tensor of the block that holds W_q, W_k and W_v, one above the other."""
FACTORS = frozenset({"lora_a", "lora_b"})
"""Names of A [3 r w] and B [3 w r] among the parameters of a method."""

Features: TypeAlias = tuple[Float[Tensor, "b d"], Float[Tensor, "b p d"]]
"""Unit global features and unit patches."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a last block is no tensor; the fields are those of `LastBlock`."""

    heads: int
    activation: str
    eps: float
    pool: str
    norm_after_pool: bool

    def __post_init__(self) -> None:
        """Check the values, which may come from a file.

        Raises:
            ValueError: If one is out of range.
        """
        whole = type(self.heads) is int and self.heads > 0
        named = self.activation in ACTIVATIONS and self.pool in POOLS
        plain = type(self.eps) is float and type(self.norm_after_pool) is bool
        if not (whole and named and plain and 0 < self.eps < 1):
            raise ValueError(f"no last block is like {asdict(self)}")


def block_of(task: TaskView) -> LastBlock:
    """Return the block that the tokens of a task go into.

    Raises:
        MissingComponentError: If the rows are in no cache with tokens.
    """
    if task.last_block is None:
        raise MissingComponentError(
            "This method computes with the last block of a backbone, and these rows are in no "
            "cache. Give it the features of a cache with tokens."
        )
    return task.last_block()


def tensors_of(block: LastBlock, like: Tensor) -> Tensors:
    """Return the tensors of a block as a method holds them, on the device of `like`."""
    return {f"{PREFIX}{name}": t.to(like.device) for name, t in block.tensors.items()}


def factors(block: LastBlock, rank: int, like: Tensor, seed: int) -> Tensors:
    """Return A, random, and B, zero.

    Args:
        block: The block.
        rank: r.
        like: Any tensor of the wanted device.
        seed: Seed of A.
    """
    w, rng = block.width, torch.Generator().manual_seed(seed)
    a = torch.randn(3, rank, w, generator=rng) / math.sqrt(w)
    return {"lora_a": a.to(like.device), "lora_b": torch.zeros(3, w, rank, device=like.device)}


def adapted(params: Tensors, fixed: Tensors, scale: float | Tensor) -> Tensors:
    """Return the fixed tensors of a method with (1) in them."""
    name = f"{PREFIX}{ADAPTED}"
    change = (params["lora_b"] @ params["lora_a"]).flatten(0, 1)  # [3w w]
    return {**fixed, name: fixed[name] + scale * change}


def encoded(shape: Shape, fixed: Tensors, tokens: Float[Tensor, "b t w"]) -> Features:
    """Return (2) of images by the block among the fixed tensors of a method.

    Raises:
        HeadError: If these are no block.
    """
    block = _block(shape, fixed)
    with sdpa_kernel(SDPBackend.MATH):  # the other kernel does not run under vmap
        return block.with_patches(tokens)


def global_features(
    shape: Shape, fixed: Tensors, tokens: Float[Tensor, "b t w"]
) -> Float[Tensor, "b d"]:
    """Return x of (2), without the work for the patches; errors as `encoded`."""
    block = _block(shape, fixed)
    with sdpa_kernel(SDPBackend.MATH):
        return block.forward(tokens)


def _block(shape: Shape, fixed: Mapping[str, Tensor]) -> LastBlock:
    tensors = {n.removeprefix(PREFIX): t for n, t in fixed.items() if n.startswith(PREFIX)}
    parts: dict[str, Any] = {name: getattr(shape, name) for name in Shape.__dataclass_fields__}
    try:
        return LastBlock(**parts, tensors=tensors)
    except ValueError as error:
        raise HeadError(f"The last block of this head {error}. Train it again.") from error


class BlockPatches:
    """Patches of tokens by a block, computed when they are gathered (`LazyRows`)."""

    def __init__(self, tokens: Tensor | LazyRows, shape: Shape, fixed: Tensors, d: int) -> None:
        self._tokens, self._shape, self._fixed, self._d = tokens, shape, fixed, d

    @property
    def shape(self) -> torch.Size:
        """Shape of all patches, [n p d]."""
        n, t, _ = self._tokens.shape
        return torch.Size((n, t - 1, self._d))

    def gather(self, index: Int64[Tensor, "*b"], pick: Int64[Tensor, "*k"] | None = None) -> Tensor:
        """Compute the patches of some images, [*b p d]; all of them, so `pick` is not for them."""
        assert pick is None
        tokens = self._tokens
        read = tokens[index] if isinstance(tokens, Tensor) else tokens.gather(index)
        return encoded(self._shape, self._fixed, read)[1]
