"""Class texts weighed by how well they match the images of their class.

    m_p  = v_c . t_p                        match of text p of class c                           (1)
    t~_c = normalise(sum_p exp(gamma m_p / |m_c|) t_p)                                           (2)

    v [c d] class means of the images, unit       t [m d] texts, unit, each of one class
    m_c     the matches of class c's texts        t~ [c d] guided texts, unit

(2) is a softmax over the texts of a class; its denominator is lost in the normalisation. Classes
may have different numbers of texts.

Reference: Li et al., Text and Image Are Mutually Beneficial, AAAI 2025, arXiv:2412.11375.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.ops.algebra import sum_by_label

ROUNDING = 1e-6
"""What a number of texts, share times count, may be off by before it is rounded up."""


def relative_matches(
    match: Float[Tensor, " m"], owner: Int64[Tensor, " m"], classes: int
) -> Float[Tensor, " m"]:
    """Return m_p / |m_c| less its maximum in the class: at most 0, so that (2) cannot overflow.

    Args:
        match: m of (1); a class whose matches are all 0 gets zeros.
        owner: Class of each text.
        classes: Number of classes.

    Example:
        >>> relative_matches(torch.tensor([0.3, 0.4, 0.2]), torch.tensor([0, 0, 1]), 2)
        tensor([-0.2000,  0.0000,  0.0000])
    """
    squares = match.new_zeros(classes).index_add(0, owner, match.square())
    length = squares.sqrt().clamp_min(torch.finfo(match.dtype).tiny)
    relative = match / length[owner]
    largest = match.new_zeros(classes)
    largest = largest.scatter_reduce(0, owner, relative, "amax", include_self=False)
    return relative - largest[owner]


def guided_texts(
    texts: Float[Tensor, "m d"],
    owner: Int64[Tensor, " m"],
    relative: Float[Tensor, " m"],
    gamma: Tensor | float,
    classes: int,
) -> Float[Tensor, "c d"]:
    """Return t~ of (2); safe under `torch.func.vmap`.

    Args:
        texts: Unit rows.
        owner: Class of each text.
        relative: As `relative_matches` returns them.
        gamma: Sharpness, at least 0; 0 weighs the texts of a class alike.
        classes: Number of classes.
    """
    weighed = torch.exp(gamma * relative)[:, None] * texts
    return F.normalize(sum_by_label(weighed.mT, owner, classes=classes).mT, dim=-1)


def times_taken(
    match: Float[Tensor, " m"], owner: Int64[Tensor, " m"], share: float, classes: int
) -> Int64[Tensor, " m"]:
    """Count how often each text is among the first of its class, from the best match on.

    Of a class with p texts ceil(share p) are taken; after the last the list begins anew.

    Args:
        match: m of (1).
        owner: Class of each text.
        share: Above 0 and at most 2.
        classes: Number of classes.

    Example:
        >>> times_taken(torch.tensor([0.1, 0.3, 0.2]), torch.zeros(3).long(), 1.5, 1)
        tensor([1, 2, 2])
    """
    sizes = torch.bincount(owner, minlength=classes)
    order = match.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]  # by class, best first
    start = sizes.cumsum(0) - sizes
    place = torch.arange(len(owner), device=owner.device) - start[owner[order]]
    rank = torch.empty_like(owner).scatter(0, order, place)
    taken = torch.ceil(share * sizes.double() - ROUNDING).long()[owner]
    return (rank < taken).long() + (rank + sizes[owner] < taken).long()
