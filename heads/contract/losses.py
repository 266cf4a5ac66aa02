"""Losses of a stage, from what a method answers."""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from heads.contract.rows import Batch, Tensors
from heads.contract.stages import Loss
from heads.ops.algebra import cross_entropy

Objective: TypeAlias = Callable[..., Tensor]
"""(params, fixed, batch, config, hyper) -> scalar."""


def last_logits(terms: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Float[Tensor, "n c"]:
    """Return the term `logits`: there is nothing left to combine."""
    return terms["logits"]


def stateless(objective: Objective) -> Loss:
    """Make the loss of a stage from an objective that remembers nothing between steps.

    Example:
        >>> import torch
        >>> loss = stateless(lambda params, fixed, batch, config, hyper: params["w"].square().sum())
        >>> loss({"w": torch.ones(3)}, {}, {}, None, None, None)
        (tensor(3.), {})
    """

    def loss(
        params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Any, hyper: Any
    ) -> tuple[Tensor, Tensors]:
        return objective(params, fixed, batch, config, hyper), state

    return loss


def cross_entropy_of(
    terms: Callable[..., Tensors],
    combine: Callable[..., Tensor] = last_logits,
    penalty: Callable[..., Tensor] | None = None,
) -> Loss:
    """Make a loss from a method's own answers to its batch: CE(logits, y), and a penalty.

    Args:
        terms: The method's.
        combine: The method's, or one that fuses the terms otherwise in training.
        penalty: (params, fixed, config, hyper) -> scalar that is added.
    """

    @stateless
    def loss(params: Tensors, fixed: Tensors, batch: Batch, config: Any, hyper: Any) -> Tensor:
        logits = combine(terms(params, fixed, batch, config, hyper), fixed, config, hyper)
        value = cross_entropy(logits, batch.y, batch.weights)
        return value if penalty is None else value + penalty(params, fixed, config, hyper)

    return loss
