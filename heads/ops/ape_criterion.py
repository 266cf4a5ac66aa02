"""Choosing the channels of a feature in which the classes differ.

    J = -omega S + (1 - omega) V                                           (1)

    S [d] mean over pairs of rows of different classes, texts and keys alike, of the product in each
          channel                 V [d] variance of the texts in each channel

Reference: Zhu et al., Not All Features Matter, ICCV 2023, arXiv:2304.01195; after the released code
@20258ec, whose four loops S is a closed form of.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import UsageError
from featcache.wording import Setting


def kept_channels(asked: int, d: int, *, method: str) -> int:
    """Return how many channels are kept.

    Raises:
        UsageError: If there are fewer.
    """
    if asked > d:
        raise UsageError(
            f"{method}'s setting channels must be at most {d}, the width of these features, got "
            f"{asked}; write e.g. ",
            Setting("channels", "0"),
            " for 25 of 32.",
        )
    return asked or max(1, round(d * 800 / 1024))


def similarity(
    keys: Float[Tensor, "m d"], labels: Int64[Tensor, " m"], anchors: Float[Tensor, "c d"]
) -> Float[Tensor, " d"]:
    """Return S of (1).

    The products of all pairs are the square of the sum of all rows; those of pairs of one class
    are the square of the sum of its rows.
    """
    sums = anchors.double().index_add(0, labels, keys.double())  # [c d]
    sizes = torch.bincount(labels, minlength=len(anchors)).double() + 1
    pairs = sizes.sum() ** 2 - sizes.square().sum()
    return (sums.sum(0).square() - sums.square().sum(0)) / pairs


def best_channels(
    similar: Float[Tensor, " d"], anchors: Float[Tensor, "c d"], omega: float, kept: int
) -> Int64[Tensor, " q"]:
    """Return the channels of largest J, in their own order."""
    criterion = -omega * similar + (1 - omega) * anchors.double().var(0)
    return criterion.topk(kept).indices.sort().values
