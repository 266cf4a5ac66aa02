"""Resize windows of many images at once on any device, in integers, to torch's own grey levels.

From ATen's CPU kernel for uint8 (`interpolate(antialias=True)`), so that both agree bit for bit:
each axis has a table of int16 weights, computed in float64; the horizontal pass comes first and
rounds to grey levels, the vertical pass reads those; sums are int32, half a unit added, shifted,
clamped to [0, 255]; an axis whose length stays is copied. Without AVX2 torch gives the same levels,
save that it (2.15) garbles a column one pixel wide that stays so; it is right here.

Ours is the batch: all windows of a chunk go through one loop over taps, a gather and a
multiply-add each, with weights of 0 where a window has fewer. Integer sums do not depend on order,
so neither padding nor the other windows change a level; float products are exact in float64 only,
and of the entries of a matrix per axis 2 % count.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int16, Int32, Int64, UInt8
from torch import Tensor

from featcache.imaging.windows import Window

MAX_BYTES = 256 * 2**20
"""Temporary memory on the device, about."""

_REACH = {"bilinear": 1.0, "bicubic": 2.0}
"""Half the width of a filter, in pixels of the coarser of the two grids."""

_SPREAD = 1.5
"""Most rows to fewest in a chunk, whose windows are all computed as tall as the tallest."""

_DTYPES = {4: torch.int32, 2: torch.int16}


@dataclass(frozen=True, slots=True)
class Taps:
    """What one axis of a resize reads, and with which weights."""

    first: Int32[np.ndarray, " o"]
    """Index of the first input of each output."""
    weights: Int16[np.ndarray, "t o"]
    """Weights of the inputs from there on, in units of 2 ** -precision; 0 past the last one."""
    precision: int


def taps(in_size: int, out_size: int, interpolation: str) -> Taps:
    """Compute the kernel's integer weights for one axis.

    Args:
        in_size: Pixels that come.
        out_size: Pixels that are wanted.
        interpolation: bilinear or bicubic.
    """
    if in_size == out_size:
        every = np.arange(out_size, dtype=np.int32)
        return Taps(every, np.ones((1, out_size), np.int16), 0)
    scale = in_size / out_size
    reach = _REACH[interpolation] * max(scale, 1.0)
    centre = scale * (np.arange(out_size) + 0.5)  # [o]
    # The casts truncate toward zero, as C's do.
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), in_size)
    count = np.minimum(end - first, 2 * math.ceil(reach) + 1)
    step = np.arange(count.max())[:, None]
    distance = (step + first - centre + 0.5) * (1.0 / max(scale, 1.0))  # [t o]
    weights = np.where(step < count, _filter(np.abs(distance), interpolation), 0.0)
    # One after the other, as the kernel sums: numpy's own sum pairs them.
    weights /= np.cumsum(weights, axis=0)[-1]
    # As many bits after the point as the largest weight leaves room for in int16.
    full = (p for p in range(22) if int(0.5 + weights.max() * (1 << (p + 1))) >= 1 << 15)
    precision = next(full, 22)
    levels = weights * (1 << precision)
    rounded = np.trunc(levels + np.copysign(0.5, levels)).astype(np.int16)
    return Taps(first.astype(np.int32), rounded, precision)


@torch.no_grad()
def resample(
    canvas: UInt8[Tensor, "i h w 3"],
    images: Sequence[int],
    windows: Sequence[Window],
    side: int,
    interpolation: str,
    max_bytes: int = MAX_BYTES,
) -> UInt8[Tensor, "k {side} {side} 3"]:
    """Cut, resize, crop and mirror windows where the canvas lies.

    The host never waits for the device: all geometry is computed here.

    Args:
        canvas: Images at the top left, padded with anything.
        images: Which row of the canvas each window is of, any number of times, in any order.
        windows: Their boxes lie inside their image; what is outside the box is not read.
        side: Of the squares, in pixels.
        interpolation: bilinear or bicubic.
        max_bytes: Of temporary memory; a single window may exceed it.
    """
    assert all(0 <= i < len(canvas) for i in images)
    assert all(_inside(window.box, canvas) for window in windows)
    out = canvas.new_empty((len(windows), side, side, 3))
    plans = [
        _Plan.of(k, image, window, side, interpolation)
        for k, (image, window) in enumerate(zip(images, windows, strict=True))
    ]
    for chunk in _chunks(plans, side, max_bytes):
        _fill(out, canvas, chunk)
    return out


@dataclass(frozen=True, slots=True)
class _Plan:
    """What becomes of one window."""

    place: int
    """Its row in the result."""
    image: int
    across: Taps
    """Taps along the columns of the canvas."""
    down: Taps
    """Taps along the rows below."""
    top: int
    """First row of the canvas that counts."""
    rows: int
    """How many from there on."""

    @classmethod
    def of(cls, place: int, image: int, window: Window, side: int, interpolation: str) -> "_Plan":
        left, top, right, bottom = window.box
        across = _part(right - left, window.width, window.left, side, interpolation)
        down = _part(bottom - top, window.height, window.top, side, interpolation)
        low = int(down.first.min())
        end = min(int(down.first.max()) + len(down.weights), bottom - top)
        order = slice(None, None, -1 if window.mirrored else 1)
        return cls(
            place,
            image,
            Taps(across.first[order] + left, across.weights[:, order], across.precision),
            Taps(down.first - low, down.weights, down.precision),
            top + low,
            end - low,
        )


def _fill(
    out: UInt8[Tensor, "n s s 3"], canvas: UInt8[Tensor, "i h w 3"], chunk: Sequence[_Plan]
) -> None:
    height, width = canvas.shape[1:3]
    across, down = [plan.across for plan in chunk], [plan.down for plan in chunk]
    rows_of = np.array([(p.place, p.image, p.top) for p in chunk], np.int32).T
    numbers, *axes = _upload((rows_of, *_stack(across), *_stack(down)), canvas.device)
    place, image, top = numbers.long()
    rows = top[:, None] + torch.arange(max(p.rows for p in chunk), device=canvas.device)
    # A window's rows and taps that others need and it does not may lie outside: they weigh 0.
    rows = rows.clamp_(max=height - 1)[..., None]  # [k r 1]
    columns = _reads(axes[0], axes[2], width)  # [t k s]
    lines = _weigh(
        lambda t: canvas[image[:, None, None], rows, columns[t][:, None]],
        axes[2][:, :, None, :, None],
        axes[1],
    )  # [k r s 3]
    each = torch.arange(len(chunk), device=canvas.device)[:, None]
    below = _reads(axes[3], axes[5], lines.shape[1])
    squares = _weigh(lambda t: lines[each, below[t]], axes[5][..., None, None], axes[4])
    out.index_copy_(0, place, squares)


def _stack(
    parts: Sequence[Taps],
) -> tuple[Int32[np.ndarray, "k s"], Int32[np.ndarray, " k"], Int16[np.ndarray, "t k s"]]:
    """Give all windows as many taps as the one with most."""
    first = np.stack([part.first for part in parts])
    weights = np.zeros((max(len(part.weights) for part in parts), *first.shape), np.int16)
    for k, part in enumerate(parts):
        weights[: len(part.weights), k] = part.weights
    return first, np.array([part.precision for part in parts], np.int32), weights


def _upload(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Bring arrays of int32 and int16 over in one copy that the host does not wait for."""
    flat = (np.ascontiguousarray(array).view(np.uint8).ravel() for array in arrays)
    padded = [np.pad(part, (0, -len(part) % 4)) for part in flat]  # int32 begins at a multiple of 4
    buffer = torch.from_numpy(np.concatenate(padded))
    if device.type == "cuda":
        buffer = buffer.pin_memory()
    pieces = torch.split(buffer.to(device, non_blocking=True), [len(part) for part in padded])
    return [
        piece[: array.nbytes].view(_DTYPES[array.itemsize]).view(array.shape)
        for piece, array in zip(pieces, arrays, strict=True)
    ]


def _reads(
    first: Int32[Tensor, "k s"], weights: Int16[Tensor, "t k s"], length: int
) -> Int64[Tensor, "t k s"]:
    step = torch.arange(len(weights), device=first.device)
    return (first + step[:, None, None]).clamp_(max=length - 1)


def _weigh(
    take: Callable[[int], Tensor], weights: Int16[Tensor, "t k a b 1"], bits: Int32[Tensor, " k"]
) -> UInt8[Tensor, "k r c 3"]:
    """Sum the taps and round to grey levels: two kernels a tap."""
    shift = bits[:, None, None, None]
    total = torch.addcmul((1 << shift) >> 1, take(0), weights[0])
    for t in range(1, len(weights)):
        total.addcmul_(take(t), weights[t])
    return total.bitwise_right_shift_(shift).clamp_(0, 255).to(torch.uint8)


def _chunks(plans: Sequence[_Plan], side: int, max_bytes: int) -> Iterator[list[_Plan]]:
    """Group windows of similar height, within the memory."""
    chunk: list[_Plan] = []
    for plan in sorted(plans, key=lambda plan: plan.rows):
        # Three channels of an int32 sum and of two grey levels.
        needed = (len(chunk) + 1) * 18 * side * max(plan.rows, side)
        if chunk and (needed > max_bytes or plan.rows > _SPREAD * max(chunk[0].rows, side)):
            yield chunk
            chunk = []
        chunk.append(plan)
    if chunk:
        yield chunk


@lru_cache(maxsize=2048)
def _part(in_size: int, out_size: int, start: int, side: int, interpolation: str) -> Taps:
    """Keep the taps of the outputs from `start` on; those that do not exist weigh nothing."""
    every = taps(in_size, out_size, interpolation)
    wanted = np.arange(start, start + side)
    nearest = wanted.clip(0, out_size - 1)
    weights = np.where(wanted == nearest, every.weights[:, nearest], np.int16(0))
    return Taps(every.first[nearest], weights, every.precision)


def _filter(distance: Float[np.ndarray, "t o"], interpolation: str) -> Float[np.ndarray, "t o"]:
    """Weigh by distance; Keys' cubic with a = -1/2, as Pillow."""
    x = distance
    if interpolation == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _inside(box: tuple[int, int, int, int], canvas: Tensor) -> bool:
    left, top, right, bottom = box
    return 0 <= left < right <= canvas.shape[2] and 0 <= top < bottom <= canvas.shape[1]
