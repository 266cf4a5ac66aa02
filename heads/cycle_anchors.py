"""Which patches the cycles of CC-CDFSL are about: its semantic anchors.

    P = the k patches closest to each text, of one image's views or of all images'      (1)

Of an image they are chosen for its own class and its rivals, the classes closest to it otherwise;
of a corpus for every class, whatever the labels.

Reference: Zhao et al., Interpretable Cross-Domain Few-Shot Learning with Rectified Target-Domain
Local Alignment, CVPR 2026, arXiv:2603.17655.
Source: reconstruction; `heads/methods/cc_cdfsl.py` says what is theirs.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from heads.contract.rows import Rows, Tensors
from heads.patch_corpus import closest_patches, parts_of
from heads.patch_map import mapped


def of_images(
    rows: Rows,
    texts: Float[Tensor, "c d"],
    change: Float[Tensor, "d d"] | None,
    *,
    k: int,
    rivals: int,
    recipe: str,
    views: bool,
) -> Tensors:
    """Return (1) image by image, as the fixed tensors of the method.

    Args:
        rows: Labelled images with patches.
        texts: Unit texts.
        change: The map of the patches, as `patch_map` gives it; None leaves them.
        k: Patches of an image and class, over its views; 0 keeps all.
        rivals: Classes beside its own.
        recipe: Recipe of the views.
        views: Use the patches of views.
    """
    clean = rows.get("patches")
    more = rows.get("view_patches", recipe) if views else None
    assert clean is not None
    pool = clean[:, None] if more is None else torch.cat([clean[:, None], more], dim=1)
    pool = mapped(pool, change)
    n, v, p, d = pool.shape  # images, views, patches, d
    kept = torch.ones(n, v, p, dtype=torch.bool, device=pool.device)
    if k:
        index, kept = closest(
            pool, texts[own_and_rivals(rows.x @ texts.mT, rows.y, rivals)], math.ceil(k / v)
        )
        pool = pool.gather(2, index[..., None].expand(-1, -1, -1, d))
    return {
        "pool": pool.reshape(n, -1, d),  # [n u d]
        "kept": kept.reshape(n, -1).to(pool),  # [n u]
        "view": torch.arange(v, device=pool.device).repeat_interleave(pool.shape[2]),  # [u]
        "owner": rows.y[:, None].expand(n, v * pool.shape[2]).clone(),  # [n u]
    }


def of_corpus(
    sets: Sequence[Rows],
    texts: Float[Tensor, "c d"],
    change: Float[Tensor, "d d"] | None,
    *,
    k: int,
    recipe: str,
    views: bool,
) -> Tensors:
    """Return (1) over all patches at once; one that several texts find counts once.

    Args:
        sets: Labelled images, and perhaps others without labels.
        texts: Unit texts.
        change: The map of the patches; None leaves them.
        k: Patches of a class.
        recipe: Recipe of the views.
        views: Use the patches of views.
    """
    parts = [parts_of(rows, recipe, views=views) for rows in sets]
    found = closest_patches(parts, texts, k, partial(mapped, change=change))
    labelled = sets[0].y
    unknown = labelled.new_full((sum(map(len, sets[1:])),), -1)
    return {
        "pool": found.rows,  # [c k d]
        "kept": found.once().to(found.rows),  # [c k]
        "view": found.view,  # [c k]
        "image": found.image,  # [c k]
        "owner": torch.cat([labelled, unknown])[found.image],  # [c k]
    }


def own_and_rivals(
    cosine: Float[Tensor, "n c"], labels: Int64[Tensor, " n"], rivals: int
) -> Int64[Tensor, "n j"]:
    """Return the class of each image and those closest to it otherwise.

    Example:
        >>> own_and_rivals(torch.tensor([[0.1, 0.3, 0.2]]), torch.tensor([0]), 1)
        tensor([[0, 1]])
    """
    first = cosine.scatter(1, labels[:, None], 2.0)
    return first.topk(min(rivals + 1, cosine.shape[1]), dim=1).indices


def closest(
    pool: Float[Tensor, "n v p d"], texts: Float[Tensor, "n j d"], each: int
) -> tuple[Int64[Tensor, "n v u"], Bool[Tensor, "n v u"]]:
    """Choose the patches of every view closest to each text; a repeated one is kept once.

    Example:
        >>> index, kept = closest(torch.eye(3)[None, None], torch.eye(3)[None, :1], 1)
        >>> index.tolist(), kept.tolist()
        ([[[0]]], [[[True]]])
    """
    n, v, p, _ = pool.shape
    cosine = torch.einsum("nvpd,njd->nvjp", pool, texts)
    index = cosine.topk(min(each, p), dim=-1).indices.reshape(n, v, -1).sort(dim=-1).values
    first = torch.cat(
        [torch.ones_like(index[..., :1]) > 0, index[..., 1:] != index[..., :-1]], dim=-1
    )
    return index, first
