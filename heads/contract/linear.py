"""Heads whose logits are affine in the unit row: one matrix and one vector answer like the head."""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import Tensors


class Linear(NamedTuple):
    """The logits x W^T + b of unit rows x."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]

    def logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Return x W^T + b."""
        return x @ self.weight.mT + self.bias

    def plus(self, other: "Linear", share: float | Tensor = 1.0) -> "Linear":
        """Return what gives these logits and, with a weight, those of another.

        Example:
            >>> import torch
            >>> one = Linear(torch.eye(2), torch.zeros(2))
            >>> one.plus(one, 0.5).logits(torch.tensor([[2.0, 0.0]]))
            tensor([[3., 0.]])
        """
        return Linear(self.weight + share * other.weight, self.bias + share * other.bias)


def not_linear(params: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Linear | None:
    """Return None: the logits are not affine in the row, or nobody has said so."""
    return None


def of_anchors(fixed: Tensors, anchors: Float[Tensor, "c d"]) -> Linear:
    """Return s x T^T + b by the scale and bias of `heads.class_texts.text_tensors`.

    Example:
        >>> import torch
        >>> fixed = {"scale": torch.tensor(10.0), "bias": torch.tensor(-1.0)}
        >>> of_anchors(fixed, torch.eye(2)).bias
        tensor([-1., -1.])
    """
    return Linear(fixed["scale"] * anchors, fixed["bias"].expand(len(anchors)))


def of_solved(fixed: Tensors) -> Linear:
    """Return x W^T + b by the tensors `weight` and `offset` of a solved discriminant."""
    return Linear(fixed["weight"], fixed["offset"])


def of_cosines(fixed: Tensors, anchors: Float[Tensor, "c d"]) -> Linear:
    """Return s x normalise(T)^T + b, as `of_anchors` for anchors that are not unit yet."""
    return of_anchors(fixed, F.normalize(anchors, dim=-1))
