"""Weights from entropy: what gives a clear answer counts more, as in AWT, arXiv:2407.04603.

a = softmax_i(-H_i / tau)       H_i entropy over classes of a softmax           (1)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from heads.ops.ragged_transport import Buckets


def clear_regions(logits: Float[Tensor, "n k c"], tau: float) -> Float[Tensor, "n k"]:
    """Weigh regions by (1): `logits` are those of each region."""
    log_p = torch.log_softmax(logits, dim=-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return torch.softmax(-entropy / tau, dim=-1)


def clear_texts(
    x: Float[Tensor, "n d"],
    means: Float[Tensor, "c d"],
    buckets: Buckets,
    scale: Float[Tensor, ""],
    tau: float,
) -> list[Float[Tensor, "n _ _"]]:
    """Weigh the texts of each class by (1), by bucket [n m c].

    H is that of the rows' logits, a class's own taken from one text alone. With Z = sum_c e^l_c and
    A = sum_c l_c e^l_c it is log Z - A / Z; one logit l_y is exchanged in both sums for each text
    of y, in float64 as they may cancel.

    Args:
        x: Unit rows.
        means: Mean text of each class.
        buckets: The texts.
        scale: Logit scale.
        tau: Temperature.
    """
    scale = scale.double()
    logits = scale * (x @ means.mT).double()  # [n c]
    top = logits.amax(-1, keepdim=True)
    logits = logits - top
    power = logits.exp()
    z, total = power.sum(-1), (logits * power).sum(-1)
    products = x @ buckets.texts.mT
    found, start, first = [], 0, 0
    for mass in buckets.masses:
        filled, members = mass > 0, buckets.members[first : first + mass.shape[1]]
        some = products[:, start : start + filled.numel()].view(-1, *filled.shape)
        alone = scale * some.double() - top[..., None]  # [n m c]
        mean, own = logits[:, None, members], alone.exp()
        z_here = z[:, None, None] - mean.exp() + own
        total_here = total[:, None, None] - mean * mean.exp() + alone * own
        entropy = z_here.log() - total_here / z_here
        weight = torch.softmax((-entropy / tau).masked_fill(~filled, -torch.inf), dim=1)
        found.append(weight.to(x))
        start += filled.numel()
        first += len(members)
    return found
