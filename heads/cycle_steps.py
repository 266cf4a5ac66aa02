"""What a step of CC-CDFSL compares: images and patches, moved and as they were.

    g(x)   = normalise(x + step relu(x D) U)                                             (1)

A small residual head (1) moves cached features and the patches that were chosen beforehand
(`by_head`); or LoRA moves the last block, and with it all patches (`by_lora`).

Source: reconstruction; `heads/methods/cc_cdfsl.py` says what is the paper's.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import Batch, Tensors
from heads.cycle_anchors import closest, own_and_rivals
from heads.last_block_lora import TOKENS, Shape, adapted, encoded
from heads.patch_map import mapped


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Images and patches of a step, unit."""

    x: Float[Tensor, "m d"]
    x_before: Float[Tensor, "m d"]
    y: Int64[Tensor, " m"]
    weight: Float[Tensor, " m"]
    patches: Float[Tensor, "b u d"]
    anchors: Float[Tensor, "b u d"]
    """The patches as they were."""
    kept: Float[Tensor, "b u"]
    """1 for patches that count, else 0."""
    owner: Int64[Tensor, "b u"]
    """Class of the image; -1 where it is not known."""
    view: Int64[Tensor, " u"]
    image: Int64[Tensor, " u"] | None = None
    """Image of each patch of a corpus."""
    asked: Int64[Tensor, " c"] | None = None
    """Classes that patches of a corpus were chosen for."""


def residual_head(rank: int, like: Float[Tensor, "n d"], seed: int) -> Tensors:
    """Return D [d r], random, and U [r d], zero, so that (1) moves nothing."""
    d, rng = like.shape[1], torch.Generator().manual_seed(seed)
    down = torch.randn(d, rank, generator=rng) / math.sqrt(d)
    return {"down": down.to(like), "up": like.new_zeros(rank, d)}


def head(params: Tensors, x: Float[Tensor, "*n d"], step: float | Tensor) -> Float[Tensor, "*n d"]:
    """Return (1)."""
    return F.normalize(x + step * F.relu(x @ params["down"]) @ params["up"], dim=-1)


def by_head(
    params: Tensors, fixed: Tensors, batch: Batch, step: float | Tensor, *, views: bool, own: bool
) -> Seen:
    """Move images, their views and chosen patches by (1).

    Args:
        params: D and U.
        fixed: The patches, as `heads.cycle_anchors` gives them.
        batch: The images, with views.
        step: Of (1).
        views: Read the views.
        own: Whether patches were chosen image by image; else of a corpus.
    """
    rows = batch.x[:, None]
    more = batch.get("views", "cdfsl") if views else None
    if more is not None:
        rows = torch.cat([rows, more], dim=1)  # [b v d]
    v, before = rows.shape[1], rows.flatten(0, 1)
    at = batch.index if own else batch.beside["pool"]  # images, or classes
    pool, kept, owner = (fixed[name][at] for name in ("pool", "kept", "owner"))  # [b u ...]
    patches, view = head(params, pool, step), fixed["view"]
    image = asked = None
    if own:
        kept = kept * (batch.weights > 0)[:, None]
    else:
        patches, pool, kept, owner = (t.flatten(0, 1)[None] for t in (patches, pool, kept, owner))
        view, image, asked = view[at].flatten(), fixed["image"][at].flatten(), at
    return Seen(
        x=head(params, before, step),
        x_before=before,
        y=batch.y.repeat_interleave(v),
        weight=batch.weights.repeat_interleave(v),
        patches=patches,
        anchors=pool,
        kept=kept,
        owner=owner,
        view=view,
        image=image,
        asked=asked,
    )


def by_lora(
    params: Tensors,
    fixed: Tensors,
    batch: Batch,
    shape: Shape,
    scale: float | Tensor,
    *,
    k: int,
    rivals: int,
) -> Seen:
    """Move images and their patches by the last block, and choose of the patches.

    Args:
        params: The factors of LoRA, and the class texts.
        fixed: The tensors of the block, and `change`, the map of patches, where there is one.
        batch: The images, with tokens.
        shape: What of the block is no tensor.
        scale: Of LoRA.
        k: Patches of an image and class; 0 takes all.
        rivals: Classes beside its own that an image's patches are chosen for.
    """
    tokens = batch.get(*TOKENS)
    assert tokens is not None
    x, patches = encoded(shape, adapted(params, fixed, scale), tokens)
    with torch.no_grad():
        x_before, before = encoded(shape, fixed, tokens)
    patches, before = (mapped(p, fixed.get("change")) for p in (patches, before))
    kept = torch.ones_like(patches[..., 0])
    if k:
        texts = F.normalize(params["text"].detach(), dim=-1)
        classes = own_and_rivals(x.detach() @ texts.mT, batch.y, rivals)
        index, first = closest(patches.detach()[:, None], texts[classes], k)
        at, kept = index[:, 0, :, None], first[:, 0].to(x)
        patches, before = (torch.take_along_dim(p, at, dim=1) for p in (patches, before))
    return Seen(
        x=x,
        x_before=x_before,
        y=batch.y,
        weight=batch.weights,
        patches=patches,
        anchors=before,
        kept=kept * (batch.weights > 0)[:, None],
        owner=batch.y[:, None].expand(kept.shape),
        view=torch.zeros_like(batch.y[:1]).expand(kept.shape[1]),
    )
