"""What is written is run and compared with the head before anybody gets it.

Rows without a tower: half at random, half near the rows that the head holds, where kernels are not
flat; of lengths from 0.1 to 20. Pictures with one: noise of several sizes, as large as the input
of the tower, so that no resampling comes between; once as the tower sees them in float32, and once
through `featcache.embed`, whose features are rounded to float16 as in a cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from featcache.backbones.base import Backbone
from featcache.errors import HeadError
from heads.exporting.formats import Run
from heads.head import Head

HEAD_TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit or of 1: float32 in another
order."""
TOWER_TOLERANCE = 1e-3
"""The same behind a tower in float32, whose rounding errors add up over its blocks."""
EMBED_TOLERANCE = 1e-2
"""The same beside features that were rounded to float16: 11 bits a channel."""
ROWS, PICTURES = 256, 4
"""Rows and pictures that are compared."""
NOISE = (1, 4, 16)
"""Sides of the squares of noise in a picture, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The largest difference between a head and its written files."""

    against: str
    """What the files were compared with."""
    rows: int
    difference: float
    """Largest error of a logit, as a share of the largest logit or of 1."""
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "against": self.against,
            "rows": self.rows,
            "largest_relative_difference": self.difference,
            "tolerance": self.tolerance,
        }


def check_rows(head: Head, width: int, run: Run) -> list[Comparison]:
    """Compare answers to rows.

    Raises:
        HeadError: If a logit differs by more than HEAD_TOLERANCE.
    """
    rows = example_rows(head, width)
    expected = head.logits(rows).float().cpu()
    return [
        _compare(run, rows.numpy(), expected, head, "the head", HEAD_TOLERANCE),
        _compare(run, rows[:1].numpy(), expected[:1], head, "the head", HEAD_TOLERANCE),
    ]


def check_pictures(head: Head, backbone: Backbone, run: Run) -> list[Comparison]:
    """Compare answers to pictures with those of the head behind `encode_images` and `embed`.

    Args:
        head: The head.
        backbone: Its backbone in float32 on the CPU.
        run: Takes normalised pixels.

    Raises:
        HeadError: If a logit differs by more than TOWER_TOLERANCE or EMBED_TOLERANCE.
    """
    from featcache.embedding import embed

    pictures = example_pictures(backbone.image_size)
    pixels = normalised(pictures, backbone)
    features, _ = backbone.encode_images(pixels)
    stored = embed(list(pictures), backbone, micro_batch=PICTURES).components["global"]
    tower, cached = (
        "the head behind the tower in float32",
        "the head on the rows of featcache.embed",
    )
    return [
        _compare(run, pixels.numpy(), head.logits(features), head, tower, TOWER_TOLERANCE),
        _compare(run, pixels.numpy(), head.logits(stored.float()), head, cached, EMBED_TOLERANCE),
    ]


def example_rows(head: Head, width: int) -> Float[Tensor, "n d"]:
    """Return rows that reach what a head holds, always the same."""
    rng = torch.Generator().manual_seed(0)
    tensors: Mapping[str, Tensor] = {**head.fitted.params, **head.fitted.fixed}
    held = [
        tensor.detach().float().cpu()
        for tensor in tensors.values()
        if tensor.dim() == 2 and tensor.shape[1] == width and tensor.is_floating_point()
    ]
    rows = F.normalize(torch.randn(ROWS, width, generator=rng), dim=-1)
    if held:
        known = F.normalize(torch.cat(held), dim=-1)
        known = known[torch.randint(len(known), (ROWS // 2,), generator=rng)]
        rows = torch.cat([rows[: ROWS - len(known)], known + 0.3 * rows[-len(known) :]])
    lengths = torch.logspace(-1, 1.3, ROWS)[:, None]
    return F.normalize(rows, dim=-1) * lengths


def example_pictures(side: int) -> UInt8[np.ndarray, "n s s 3"]:
    """Return square pictures of noise, always the same."""
    rng = np.random.default_rng(0)
    total = np.zeros((PICTURES, side, side, 3))
    for square in NOISE:
        count = -(-side // square)
        coarse = rng.normal(size=(PICTURES, count, count, 3)).repeat(square, 1).repeat(square, 2)
        total += coarse[:, :side, :side]
    return np.clip(128 + 40 * total, 0, 255).astype(np.uint8)


def normalised(
    pictures: UInt8[np.ndarray, "n s s 3"], backbone: Backbone
) -> Float[Tensor, "n 3 s s"]:
    """Return pictures of the tower's size as the tower takes them."""
    mean, std = (torch.tensor(values) for values in (backbone.mean, backbone.std))
    levels = torch.from_numpy(pictures).float() / 255
    return ((levels - mean) / std).permute(0, 3, 1, 2).contiguous()


def _compare(
    run: Run,
    rows: Float[np.ndarray, "n ..."],
    expected: Float[Tensor, "n c"],
    head: Head,
    against: str,
    tolerance: float,
) -> Comparison:
    try:
        logits, probabilities = (torch.from_numpy(np.array(out)) for out in run(rows))
    except Exception as error:  # each format has errors of its own
        raise _differ(f"no answer: {' '.join(str(error).split())[:300]}") from error
    if logits.shape != expected.shape or probabilities.shape != expected.shape:
        raise _differ(f"{list(logits.shape)} for {list(expected.shape)} logits of {against}")
    expected = expected.float()
    largest = max(1.0, float(expected.abs().max()))
    difference = float((logits - expected).abs().max()) / largest
    if not difference <= tolerance:
        raise _differ(
            f"logits that differ from {against} by {difference:.1e} of the largest, where "
            f"{tolerance:.0e} is allowed"
        )
    own = torch.softmax(logits.double() / head.temperature, dim=-1)
    if not float((own - probabilities).abs().max()) <= HEAD_TOLERANCE:
        raise _differ("probabilities that are not the softmax of their logits")
    return Comparison(against=against, rows=len(rows), difference=difference, tolerance=tolerance)


def _differ(what: str) -> HeadError:
    return HeadError(
        f"The written files gave {what}. Nothing was exported; another format may do, and a "
        f"report of this head is welcome."
    )
