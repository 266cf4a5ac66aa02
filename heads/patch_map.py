"""A linear map of patches onto class texts, shared by all patches and learned from labelled images.

    A = argmin sum_i w_i sum_p |x_ip A - t_y(i)|^2 + ridge (m / d) |A - I|^2             (1)

    x_ip [d] patch p of image i in any view, unit     t [c d] class texts     y(i) label of image i
    w_i  weight of image i         m  the sum of the weights of all patches

Patches of a frozen backbone need not lie near texts, not even where a linear classifier reads the
class out of them. (1) moves them there; background is pulled to the text of its image as well. The
penalty is in units of the mean eigenvalue of the patches' second moments, which is m / d for unit
patches, and a large one leaves patches as they are.

Source: ours; least squares onto class texts, as `init=ridge` of `heads/methods/cmm.py`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import LazyRows
from heads.ops.alignment import ridge_change
from heads.patch_corpus import Layout, blocks_of


def patch_map(
    parts: Sequence[Tensor | LazyRows],
    labels: Int64[Tensor, " n"],
    weights: Float[Tensor, " n"],
    texts: Float[Tensor, "c d"],
    ridge: float,
) -> Float[Tensor, "d d"]:
    """Return A - I of (1), in one pass over the patches; memory does not grow with their number.

    Args:
        parts: Unit patches of the same n images: [n p d] of the clean image, [n v p d] of views.
        labels: Class of each image.
        weights: Weight of each image.
        texts: Unit texts.
        ridge: Strength of the penalty, above 0.

    Example:
        >>> patches = torch.eye(2)[:, None]  # two images of one patch each
        >>> change = patch_map([patches], torch.tensor([1, 0]), torch.ones(2), torch.eye(2), 1e-6)
        >>> (torch.eye(2) + change).round(decimals=3).abs().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    layout, (c, d) = Layout.of([parts]), texts.shape
    moments = texts.new_zeros(d, d, dtype=torch.float64)
    sums = texts.new_zeros(c, d, dtype=torch.float64)
    total = moments.new_zeros(())
    for rows, place in blocks_of(parts, texts, layout):
        image = place // layout.each
        weighed = weights[image, None].to(rows) * rows
        moments += (weighed.mT @ rows).double()
        sums.index_add_(0, labels[image], weighed.double())
        total += weights[image].sum()
    cross = sums.mT @ texts.double() - moments  # X^T (T_y - X)
    return ridge_change(moments, cross, ridge * total / d).to(texts)


def mapped(x: Float[Tensor, "*n d"], change: Float[Tensor, "d d"] | None) -> Float[Tensor, "*n d"]:
    """Return normalise(x A) for the A - I of `patch_map`; x itself where there is none."""
    return x if change is None else F.normalize(x + x @ change, dim=-1)
