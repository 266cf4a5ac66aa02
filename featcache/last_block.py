"""The last block of a plain ViT as tensors: cached tokens in, the global feature out.

With h [t w] the tokens that go into the block, the class token first, y = ln_1(h), and q, k, v the
heads of y, each of width e:

    z = h + ls_1 O(softmax(q k^T / sqrt(e)) v)                                           (1)
    z = z + ls_2 mlp(ln_2(z)),    mlp(x) = c_proj(act(c_fc(x)))                          (2)
    x = ln_post(z_0) @ proj                                                              (3)

z_0 is the class token. Towers that pool by the mean have the mean of the other tokens in its place,
with ln_post before it or after it. ls_1 and ls_2 are LayerScale, where a tower has it.

The tensors have the names of open_clip's state dict, so a trained block goes back into its model.
No model is needed to compute (1) to (3), only this file.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import UsageError

QUICK_GELU = 1.702
"""The slope s of quick GELU, x sigmoid(s x)."""


def quick_gelu(x: Tensor) -> Tensor:
    """Return x sigmoid(1.702 x), elementwise."""
    return x * torch.sigmoid(QUICK_GELU * x)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
}
"""Name -> activation of the mlp."""
POOLS = ("tok", "avg")
"""Class token, or mean of the other tokens."""
NORMS = ("ln_1", "ln_2", "ln_post")


@dataclass(frozen=True, kw_only=True, eq=False)
class LastBlock:
    """Weights of the last block, its norm and its projection, with all that `forward` needs.

    Example:
        >>> import featcache, numpy
        >>> from featcache.backbones.registry import load_backbone
        >>> grey = numpy.full((64, 64, 3), 128, dtype=numpy.uint8)
        >>> image = featcache.embed(grey, "tiny", tokens=["last-block"])
        >>> block = load_backbone("tiny").last_block()  # of a cache: cache.last_block()
        >>> unit = block.forward(image.rows("tokens.last-block").float())
        >>> bool((unit * image.unit("global")).sum() > 0.9999)
        True
    """

    heads: int
    """Attention heads."""
    activation: str
    """One of `ACTIVATIONS`."""
    eps: float
    """Epsilon of the norms."""
    pool: str
    """tok: class token; avg: mean of the other tokens."""
    norm_after_pool: bool
    """Whether ln_post follows the mean instead of preceding it."""
    tensors: Mapping[str, Tensor]
    """Name -> float32 tensor; `shapes` lists them."""

    def __post_init__(self) -> None:
        """Check that the tensors fit together.

        Raises:
            ValueError: If they do not; the message is a predicate ("lacks the tensor proj").
        """
        _check(self)

    def __repr__(self) -> str:
        return f"LastBlock(w={self.width}, d={self.dim}, heads={self.heads}, {self.activation})"

    @property
    def width(self) -> int:
        """Width w of a token."""
        return int(self.tensors["proj"].shape[0])

    @property
    def dim(self) -> int:
        """Width d of the joint space."""
        return int(self.tensors["proj"].shape[1])

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def digest(self) -> str:
        """Return the sha256 of everything that determines the answers, as 64 hex digits."""
        told = hashlib.sha256(repr(sorted(self.settings().items())).encode())
        for name in sorted(self.tensors):
            values = self.tensors[name].detach().cpu().contiguous()
            told.update(f"{name} {list(values.shape)} ".encode())
            told.update(values.numpy().astype("<f4", copy=False).tobytes())
        return told.hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return everything beside the tensors as plain values."""
        return {
            "heads": self.heads,
            "activation": self.activation,
            "eps": self.eps,
            "pool": self.pool,
            "norm_after_pool": self.norm_after_pool,
        }

    def forward(
        self, tokens: Float[Tensor, "*b t w"], tensors: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "*b d"]:
        """Return the unit global feature of each image.

        Args:
            tokens: Tokens before the block, the class token first; float32 on the device of the
                tensors.
            tensors: Other values of all tensors, by name: parameters in training. None takes
                those of the backbone.

        Raises:
            UsageError: If the tokens have another width.
        """
        return F.normalize(self.encode(tokens, tensors), dim=-1)

    def encode(
        self, tokens: Float[Tensor, "*b t w"], tensors: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "*b d"]:
        """Return the global feature of each image by (1) to (3), not normalised.

        Arguments and errors are those of `forward`.
        """
        p = self._values(tokens, tensors)
        z = self._block(p, tokens, slice(0, 1 if self.pool == "tok" else None))
        return self._pooled(p, z)

    def with_patches(
        self, tokens: Float[Tensor, "*b t w"], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b p d"]]:
        """Return the unit global feature and the unit vanilla patches, p = t - 1, of each image.

        A patch is ln_post and the projection of its row of (2). Arguments and errors are those of
        `forward`.
        """
        p = self._values(tokens, tensors)
        z = self._block(p, tokens, slice(None))
        patches = self._norm(p, "ln_post", z[..., 1:, :]) @ p["proj"]
        return F.normalize(self._pooled(p, z), dim=-1), F.normalize(patches, dim=-1)

    def _values(
        self, tokens: Float[Tensor, "*b t w"], tensors: Mapping[str, Tensor] | None
    ) -> Mapping[str, Tensor]:
        if tokens.ndim < 2 or tokens.shape[-1] != self.width:
            raise UsageError(
                f"This last block takes tokens [... t {self.width}], got {list(tokens.shape)}. "
                "Give it rows of tokens.last-block from a cache of the same backbone."
            )
        return self.tensors if tensors is None else tensors

    def _block(
        self, p: Mapping[str, Tensor], tokens: Float[Tensor, "*b t w"], read: slice
    ) -> Float[Tensor, "*b q w"]:
        """Compute the rows of (2) that are read."""
        y = self._norm(p, "ln_1", tokens)
        z = tokens[..., read, :] + _scaled(p, "ls_1", self._attend(p, y, read))
        hidden = ACTIVATIONS[self.activation](_linear(p, "mlp.c_fc", self._norm(p, "ln_2", z)))
        return z + _scaled(p, "ls_2", _linear(p, "mlp.c_proj", hidden))

    def _pooled(self, p: Mapping[str, Tensor], z: Float[Tensor, "*b q w"]) -> Float[Tensor, "*b d"]:
        if self.pool == "tok":
            pooled = self._norm(p, "ln_post", z[..., 0, :])
        elif self.norm_after_pool:
            pooled = self._norm(p, "ln_post", z[..., 1:, :].mean(-2))
        else:
            pooled = self._norm(p, "ln_post", z)[..., 1:, :].mean(-2)
        return pooled @ p["proj"]

    def _norm(self, p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)

    def _attend(
        self, p: Mapping[str, Tensor], y: Float[Tensor, "*b t w"], first: slice
    ) -> Float[Tensor, "*b q w"]:
        """Attend from the first tokens to all of them."""
        weight, bias = p["attn.in_proj_weight"], p["attn.in_proj_bias"]
        w = self.width
        q = F.linear(y[..., first, :], weight[:w], bias[:w])
        k, v = F.linear(y, weight[w:], bias[w:]).chunk(2, dim=-1)
        q, k, v = (x.reshape(*x.shape[:-1], self.heads, -1).transpose(-2, -3) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)  # [*b heads q e]
        return _linear(p, "attn.out_proj", attended.transpose(-2, -3).flatten(-2))


def shapes(w: int, m: int, d: int) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return name -> shape of the tensors that every block has, and of those of LayerScale.

    Args:
        w: Width of a token.
        m: Width of the mlp.
        d: Width of the joint space.
    """
    every: dict[str, tuple[int, ...]] = {
        f"{norm}.{part}": (w,) for norm in NORMS for part in ("weight", "bias")
    }
    every |= {"attn.in_proj_weight": (3 * w, w), "attn.in_proj_bias": (3 * w,)}
    every |= {"attn.out_proj.weight": (w, w), "attn.out_proj.bias": (w,)}
    every |= {"mlp.c_fc.weight": (m, w), "mlp.c_fc.bias": (m,)}
    every |= {"mlp.c_proj.weight": (w, m), "mlp.c_proj.bias": (w,), "proj": (w, d)}
    return every, {"ls_1.gamma": (w,), "ls_2.gamma": (w,)}


def _linear(p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _scaled(p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    gamma = p.get(f"{name}.gamma")
    return x if gamma is None else x * gamma


def _check(block: LastBlock) -> None:
    if block.activation not in ACTIVATIONS or block.pool not in POOLS:
        raise ValueError(f"has an unknown activation or pool ({block.activation}, {block.pool})")
    if type(block.heads) is not int or type(block.norm_after_pool) is not bool:
        raise ValueError("has settings of another type")
    if not 0 < block.eps < 1:
        raise ValueError(f"has an epsilon of {block.eps}")
    tensors = block.tensors
    for name in ("proj", "mlp.c_fc.weight"):
        if name not in tensors or tensors[name].ndim != 2:
            raise ValueError(f"lacks the tensor {name}, or it is no matrix")
    (w, d), m = tensors["proj"].shape, tensors["mlp.c_fc.weight"].shape[0]
    if min(w, d, m) < 1 or block.heads < 1 or w % block.heads:
        raise ValueError(f"has tokens of width {w}, which {block.heads} heads cannot share")
    every, scales = shapes(w, m, d)
    expected = every | (scales if scales.keys() & tensors.keys() else {})
    if unlike := sorted(expected.keys() ^ tensors.keys()):
        raise ValueError(f"lacks the tensor {unlike[0][:60]}, or should not have it")
    for name, shape in expected.items():
        values = tensors[name]
        if tuple(values.shape) != shape or values.dtype != torch.float32:
            raise ValueError(
                f"has {name} as {values.dtype} {list(values.shape)}, not float32 {list(shape)}"
            )
