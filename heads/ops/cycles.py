"""Two cycles of CC-CDFSL: from texts to patches and back, and from patches to texts and on.

    u_j    = normalise(sum_i a_ji P_i),      a_j = pick_i(t_j . P_i / tau)               (1)
    L_text = -mean_j log b_jj,               b_j = softmax_k(u_j . t_k / tau_back)       (2)
    r_n    = normalise(sum_j q_nj t_j),      q_n = pick_j(P_n . t_j / tau_back)          (3)
    y_n    = normalise(sum_m w_nm P_m),      w_n = pick_m(r_n . P_m / tau)               (4)
    L_img  = 1 - mean_n P_n . keep(y_n)                                                  (5)

    P [i d] patches, unit     t [c d] class texts, unit     keep stops the gradient of a soft pick

With a hard pick (2) is the paper's 1 - mean_j t_j . t_argmax(b_j).

Reference: Zhao et al., Interpretable Cross-Domain Few-Shot Learning with Rectified Target-Domain
Local Alignment, CVPR 2026, arXiv:2603.17655.
Source: reconstruction; `heads/methods/cc_cdfsl.py` says what is theirs.
"""

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.ops.attention import Pick, pick

Retrieval: TypeAlias = Literal["cross-view", "intra-image", "all-images"]
"""Where (4) looks for another patch."""


def text_cycle(
    texts: Float[Tensor, "c d"],
    patches: Float[Tensor, "b u d"],
    cosine: Float[Tensor, "b u c"],
    kept: Float[Tensor, "b u"],
    *,
    cycle: Pick,
    tau: float | Tensor,
    tau_back: float | Tensor,
    at: Int64[Tensor, " m"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Go from each text, or from those at some places, to patches and back: (1) and (2).

    Args:
        texts: Unit texts.
        patches: Unit patches of b images.
        cosine: Of each patch with each text.
        kept: 1 for patches that count, else 0.
        cycle: How patches, and texts of a hard cycle, are picked.
        tau: Temperature of picking patches.
        tau_back: Temperature of picking texts.
        at: Positions of the texts; None is all.

    Returns:
        The loss, and the share of these texts that are closest to what they found, in [0, 1].

    Example:
        >>> both = torch.eye(2)
        >>> loss, closed = text_cycle(both, both[None], both[None], torch.ones(1, 2),
        ...                           cycle="soft", tau=0.1, tau_back=0.1)
        >>> round(float(loss), 3), float(closed)
        (0.0, 1.0)
    """
    flat, allowed = patches.flatten(0, 1), kept.flatten() > 0
    scores = cosine.flatten(0, 1).mT  # [c i]
    own = torch.arange(len(texts), device=texts.device) if at is None else at
    if at is not None:
        scores = scores[at]
    found = pick(scores / tau, cycle, allowed[None])  # [m i]
    seen = F.normalize(found @ flat, dim=-1)  # [m d]
    back = seen @ texts.mT  # [m c]
    closed = (back.argmax(-1) == own).to(back).mean()
    if cycle == "soft":
        right = back.gather(1, own[:, None])[:, 0] / tau_back
        return (torch.logsumexp(back / tau_back, -1) - right).mean(), closed
    again = pick(back / tau_back, cycle) @ texts
    asked = texts if at is None else texts[at]
    return 1 - F.cosine_similarity(asked, again, dim=-1).mean(), closed


def image_cycle(
    texts: Float[Tensor, "c d"],
    patches: Float[Tensor, "b u d"],
    cosine: Float[Tensor, "b u c"],
    kept: Float[Tensor, "b u"],
    view: Int64[Tensor, " u"],
    *,
    cycle: Pick,
    retrieval: Retrieval,
    tau: float | Tensor,
    tau_back: float | Tensor,
    image: Int64[Tensor, " u"] | None = None,
) -> Float[Tensor, ""]:
    """Go from each patch to its text and on to another patch: (3) to (5).

    Args:
        texts: Unit texts.
        patches: Unit patches of b images, or with `image` those of a corpus, b = 1.
        cosine: Of each patch with each text.
        kept: 1 for patches that count, else 0.
        view: View of each patch.
        cycle: How texts and patches are picked.
        retrieval: Where another patch is looked for.
        tau: Temperature of picking patches.
        tau_back: Temperature of picking texts.
        image: Image of each patch of a corpus.

    Example:
        >>> patch = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])  # the same in two views
        >>> loss = image_cycle(torch.eye(2), patch, patch, torch.ones(1, 2), torch.tensor([0, 1]),
        ...                    cycle="soft", retrieval="cross-view", tau=0.1, tau_back=0.1)
        >>> round(float(loss), 3)
        0.0
    """
    told = F.normalize(pick(cosine / tau_back, cycle) @ texts, dim=-1)  # [b u d]
    places, there = patches, kept
    if retrieval == "all-images":
        told, places = told.flatten(0, 1)[None], patches.flatten(0, 1)[None]
        there = kept.flatten()[None]
    if retrieval != "cross-view":  # every patch but itself
        view = torch.arange(there.shape[1], device=view.device)
    elsewhere = view[:, None] != view
    if image is not None and retrieval != "all-images":
        elsewhere = elsewhere & (image[:, None] == image)
    allowed = elsewhere[None] & (there > 0)[:, None]
    found = pick(told @ places.mT / tau, cycle, allowed) @ places
    found = F.normalize(found, dim=-1).reshape(patches.shape)
    if cycle == "soft":
        found = found.detach()
    counted = kept.flatten() * allowed.any(-1).flatten()  # a corpus may hold no other view
    total = (counted * (patches * found).sum(-1).flatten()).sum()
    return 1 - total / counted.sum().clamp_min(1)


def share_right(
    cosine: Float[Tensor, "b u c"], owner: Int64[Tensor, "b u"], kept: Float[Tensor, "b u"]
) -> Float[Tensor, ""]:
    """Return the share of patches whose nearest text is that of their image, in [0, 1].

    Args:
        cosine: Of each patch with each text.
        owner: Class of its image; -1 where it is not known, such patches are left out.
        kept: 1 for patches that count, else 0.

    Example:
        >>> float(share_right(torch.eye(2)[None], torch.tensor([[0, 0]]), torch.ones(1, 2)))
        0.5
    """
    counted = kept * (owner >= 0)
    right = (cosine.argmax(-1) == owner).to(kept)
    return (counted * right).sum() / counted.sum().clamp_min(1)
