"""Predicted duration of a pass, from counts and rates, within a factor of two.

    seconds = (images D + views (W + F + G / R) + distorted views E) / cores           (1)

    D decoding    W cutting a window    E distorting a view    F a view's share of a forward
    that no flop explains    G its GFLOP    R GFLOP a second of one core

Views are crops and the central view, too; batches are padded, and so are counted whole. The
rates are those of one core of a server of 2023 (`python benchmarks/forecast.py` measures them); a
GPU computes beside the threads that draw, so the slower of the two counts.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from featcache.imaging.views import ViewSpec, distorts
from featcache.units import rough_seconds

DECODE, WINDOW, DISTORT, FORWARD = 0.005, 0.0004, 0.001, 0.002
"""Seconds of one core: decode an image; cut a view; distort it; overhead of its forward pass."""
GFLOPS_A_CORE = {"float32": 90.0, "bfloat16": 250.0}
GFLOPS_OF_A_DEVICE = {"cuda": 60_000.0, "mps": 2_000.0}
FACTOR = 2
"""Factor by which a forecast may be too low or too high."""


def predict_seconds(
    encoded: Sequence[tuple[ViewSpec, Int64[np.ndarray, " _"]]],
    blocks: Sequence[Int64[np.ndarray, " _"]],
    *,
    gflops: float,
    micro_batch: int,
    device: str,
    dtype: str,
    cores: int,
) -> float:
    """Return the predicted seconds by equation (1).

    Args:
        encoded: What goes through the encoder: each kind of views with its rows, ascending.
        blocks: All rows that are decoded, shard by shard.
        gflops: GFLOP of the forward pass of one view.
        micro_batch: Views in a batch.
        device: cpu, cuda, mps.
        dtype: float32 or bfloat16.
        cores: Cores of the processor.
    """
    images = sum(map(len, blocks))
    drawn = {p: len(rows) * p.count for p, rows in encoded}
    distorted = sum(n for p, n in drawn.items() if p.recipe and distorts(p.recipe))
    batches = sum(
        -(-n * p.count // micro_batch) for p, rows in encoded for n in _each(rows, blocks)
    )
    drawing = images * DECODE + sum(drawn.values()) * WINDOW + distorted * DISTORT
    if rate := GFLOPS_OF_A_DEVICE.get(device):
        return max(drawing / cores, batches * micro_batch * gflops / rate)
    forward = FORWARD + gflops / GFLOPS_A_CORE.get(dtype, GFLOPS_A_CORE["float32"])
    return (drawing + batches * micro_batch * forward) / cores


def human_range(seconds: float) -> str:
    """Write a forecast as a range: 5 s to 20 s."""
    low, high = (rough_seconds(s) for s in (seconds / FACTOR, seconds * FACTOR))
    return low if low == high else f"{low} to {high}"


def _each(
    rows: Int64[np.ndarray, " _"], blocks: Iterable[Int64[np.ndarray, " _"]]
) -> Iterable[int]:
    """Yield the number of rows in each block."""
    for block in blocks:
        first, last = np.searchsorted(rows, [block[0], block[-1] + 1])
        yield int(last - first)
