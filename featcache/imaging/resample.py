"""Resize windows of many images at once on any device, bit for bit like torch on a CPU.

The arithmetic is that of ATen's CPU kernel for uint8 (`interpolate(antialias=True)`). Each axis has
a table of int16 weights, computed in float64. The horizontal pass comes first and rounds to grey
levels, which the vertical pass reads. Sums are int32; half a unit is added, then they are shifted
and clamped to [0, 255]. An axis that keeps its length is copied. Without AVX2 torch gives the same
levels, except that torch 2.15 garbles a column one pixel wide that keeps its width.

We batch windows: all windows of a chunk go through one loop over taps, with a gather and a
multiply-add each; windows with fewer taps have weights of 0. Integer sums do not depend on their
order, so that neither padding nor other windows change a level. A matrix product per axis would be
exact in float64 only, and 98 % of the entries of its matrix would be 0.
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
"""Approximate temporary memory on the device."""

_REACH = {"bilinear": 1.0, "bicubic": 2.0}
"""Half the width of a filter in pixels of the coarser grid."""

_SPREAD = 1.5
"""Largest ratio of heights in a chunk; all its windows are padded to the tallest."""

_DTYPES = {4: torch.int32, 2: torch.int16}


@dataclass(frozen=True, slots=True)
class Taps:
    """The inputs of one axis of a resize, and their weights."""

    first: Int32[np.ndarray, " o"]
    """Index of the first input of each output."""
    weights: Int16[np.ndarray, "t o"]
    """Weights of the inputs from `first` on, in units of 2 ** -precision; 0 after the last one."""
    precision: int


def taps(in_size: int, out_size: int, interpolation: str) -> Taps:
    """Compute the kernel's integer weights for one axis.

    Args:
        in_size: Input length in pixels.
        out_size: Output length in pixels.
        interpolation: bilinear or bicubic.
    """
    if in_size == out_size:
        every = np.arange(out_size, dtype=np.int32)
        return Taps(every, np.ones((1, out_size), np.int16), 0)
    scale = in_size / out_size
    reach = _REACH[interpolation] * max(scale, 1.0)
    centre = scale * (np.arange(out_size) + 0.5)  # [o]
    # Casts truncate toward zero, as in C.
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), in_size)
    count = np.minimum(end - first, 2 * math.ceil(reach) + 1)
    step = np.arange(count.max())[:, None]
    distance = (step + first - centre + 0.5) * (1.0 / max(scale, 1.0))  # [t o]
    weights = np.where(step < count, _filter(np.abs(distance), interpolation), 0.0)
    # Sum sequentially, as the kernel does; numpy's sum is pairwise.
    weights /= np.cumsum(weights, axis=0)[-1]
    # The most fractional bits with which the largest weight fits int16.
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
    """Cut, resize, crop and mirror windows on the device of the canvas.

    The host never waits for the device, because it computes all geometry.

    Args:
        canvas: Images at the top left, with any padding.
        images: Index of the image of each window, in any order, with repetitions.
        windows: Windows whose boxes are inside their image; pixels outside a box are not read.
        side: Side of the squares in pixels.
        interpolation: bilinear or bicubic.
        max_bytes: Limit of temporary memory; a single window may exceed it.
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
    """How one window is computed."""

    place: int
    """Index in the result."""
    image: int
    across: Taps
    """Taps along the columns of the canvas."""
    down: Taps
    """Taps along the rows below."""
    top: int
    """First row of the canvas that is read."""
    rows: int
    """Number of rows that are read."""

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
    # Padded rows and taps of a window may be outside the canvas; their weight is 0.
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
    """Stack the taps of all windows, padded to the largest number of taps."""
    first = np.stack([part.first for part in parts])
    weights = np.zeros((max(len(part.weights) for part in parts), *first.shape), np.int16)
    for k, part in enumerate(parts):
        weights[: len(part.weights), k] = part.weights
    return first, np.array([part.precision for part in parts], np.int32), weights


def _upload(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Upload arrays of int32 and int16 in one asynchronous copy."""
    flat = (np.ascontiguousarray(array).view(np.uint8).ravel() for array in arrays)
    padded = [np.pad(part, (0, -len(part) % 4)) for part in flat]  # align int32 to 4 bytes
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
    """Sum the taps and round to grey levels, with two kernels per tap."""
    shift = bits[:, None, None, None]
    total = torch.addcmul((1 << shift) >> 1, take(0), weights[0])
    for t in range(1, len(weights)):
        total.addcmul_(take(t), weights[t])
    return total.bitwise_right_shift_(shift).clamp_(0, 255).to(torch.uint8)


def _chunks(plans: Sequence[_Plan], side: int, max_bytes: int) -> Iterator[list[_Plan]]:
    """Group windows of similar height within the limit of memory."""
    chunk: list[_Plan] = []
    for plan in sorted(plans, key=lambda plan: plan.rows):
        # Three channels of one int32 sum and two uint8 levels.
        needed = (len(chunk) + 1) * 18 * side * max(plan.rows, side)
        if chunk and (needed > max_bytes or plan.rows > _SPREAD * max(chunk[0].rows, side)):
            yield chunk
            chunk = []
        chunk.append(plan)
    if chunk:
        yield chunk


@lru_cache(maxsize=2048)
def _part(in_size: int, out_size: int, start: int, side: int, interpolation: str) -> Taps:
    """Return the taps of `side` outputs from `start` on; outputs out of range have weight 0."""
    every = taps(in_size, out_size, interpolation)
    wanted = np.arange(start, start + side)
    nearest = wanted.clip(0, out_size - 1)
    weights = np.where(wanted == nearest, every.weights[:, nearest], np.int16(0))
    return Taps(every.first[nearest], weights, every.precision)


def _filter(distance: Float[np.ndarray, "t o"], interpolation: str) -> Float[np.ndarray, "t o"]:
    """Evaluate the filter; bicubic is Keys' with a = -1/2, as in Pillow."""
    x = distance
    if interpolation == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _inside(box: tuple[int, int, int, int], canvas: Tensor) -> bool:
    left, top, right, bottom = box
    return 0 <= left < right <= canvas.shape[2] and 0 <= top < bottom <= canvas.shape[1]
