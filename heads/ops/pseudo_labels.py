"""Pseudo-labels of two classifiers, and how far each label is trusted.

    guess  = argmax_c r_c,   r = (1 - gamma) L + gamma F                                  (1)
    omega  = how far the guess is trusted, in [0, 1]                                      (2)
             agreement  L'_guess F'_guess, each the softmax divided by its maximum
             margin     1 - r'_second / r'_guess, r' the softmax of r
             confusion  agreement times 1 - max(0, A_guess . A_second)
             none       1

    L, F [n c] logits of the two      A [c d] class anchors of the first
    second is the runner-up in r

Source: agreement as DPA's released code @7435c94 weighs by two classifiers; none as microCLIP
@977ad31; margin and confusion are ours.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

Weighting = Literal["agreement", "margin", "confusion", "none"]


def pseudo_labels(
    first: Float[Tensor, "n c"],
    second: Float[Tensor, "n c"],
    anchors: Float[Tensor, "c d"],
    weighting: Weighting,
    gamma: float | Tensor,
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the guesses (1) and how far each is trusted (2).

    Args:
        first: L.
        second: F.
        anchors: A, of any length.
        weighting: Which of (2).
        gamma: Share of F, in [0, 1].

    Example:
        >>> first = torch.tensor([[0.0, 2.0], [1.0, 0.9]])
        >>> guess, trust = pseudo_labels(first, first, torch.eye(2), "margin", 0.0)
        >>> guess, trust
        (tensor([1, 0]), tensor([0.8647, 0.0952]))
    """
    top, place = ((1 - gamma) * first + gamma * second).topk(2)
    guess, runner_up = place[:, 0], place[:, 1]
    if weighting == "none":
        return guess, torch.ones_like(top[:, 0])
    if weighting == "margin":
        return guess, 1 - torch.exp(top[:, 1] - top[:, 0])
    below = [m.gather(-1, guess[:, None])[:, 0] - m.amax(-1) for m in (first, second)]
    trust = torch.exp(below[0] + below[1])
    if weighting == "confusion":
        alike = F.cosine_similarity(anchors[guess], anchors[runner_up], dim=-1)
        trust = trust * (1 - alike.clamp(0, 1))
    return guess, trust


def balance(share: Float[Tensor, " c"]) -> Float[Tensor, ""]:
    """Return how many classes are guessed, exp of the entropy of their shares, over all classes.

    Args:
        share: Share of the guesses that each class has, sum 1.

    Example:
        >>> balance(torch.tensor([0.5, 0.5, 0.0, 0.0]))
        tensor(0.5000)
    """
    return torch.exp(-torch.xlogy(share, share).sum()) / len(share)
