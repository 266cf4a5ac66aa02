"""Evaluating a post grid from few of its points, where a method declares its logits' shape.

A Hyper field may declare that the logits are affine in it, or smooth (`number(..., logits=...)`):

    logits(a, b) = z(b) + a v(b)                                           (1)
    z(b), v(b)   = sum_j L_j(b) z(b_j), sum_j L_j(b) v(b_j)                (2)

    a the last axis of the grid   v [n c] the slope in a
    b another axis                b_j Chebyshev points, L_j the polynomials that are 1 at b_j

By (1) the values of a at which a row is answered correctly form an interval, found in one pass over
the classes instead of one a value. By (2) 20 values of b determine 200: the polynomial through the
Chebyshev points of a function like exp(-b x), x in [0, 2], b in [0, 12], is exact to 2e-7. Both are
compared with the logits themselves at some points before they are used. Classes that cannot win at
any point are left out.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from heads.contract.settings import Grid

NODES = 20
"""Nodes of a smooth axis; an axis with no more values than that is not interpolated."""
SLACK = 0.25
"""Largest rise of a curve between two nodes, as a share of the largest jump nearby."""
TOLERANCE = 4e-6
"""Largest difference between (2) and the logits themselves, as a share of the largest."""
BLOCK = 2**18
"""Largest number of values held in one step."""

Line: TypeAlias = Callable[[Mapping[str, float]], tuple[Tensor, Tensor]]
"""Values of the other axes -> (z, v) of (1)."""
Logits: TypeAlias = Callable[[Mapping[str, float]], Tensor]
"""Values of all axes -> logits."""


def claims(hyper_type: type[Any]) -> dict[str, str]:
    """Return how each field of a Hyper affects the logits: affine, smooth or empty (undeclared)."""
    return {f.name: f.metadata.get("logits", "") for f in fields(hyper_type)}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A post grid whose last axis is affine, and the nodes that determine all its other points."""

    grid: Grid
    smooth: tuple[str, ...]
    """Axes that are interpolated; of the others every value is computed."""

    @staticmethod
    def of(hyper_type: type[Any], grid: Grid) -> "Curves | None":
        """Return None where the last axis is not affine, holds 0, or is too short to benefit."""
        declared, names = claims(hyper_type), list(grid.axes)
        if not names or declared[names[-1]] != "affine" or len(grid.axes[names[-1]]) < 3:
            return None
        # classes with equal texts tie exactly at 0, and open intervals of a cannot resolve a tie
        if 0 in grid.axes[names[-1]]:
            return None
        smooth = [n for n in names[:-1] if declared[n] == "smooth" and len(grid.axes[n]) > NODES]
        return Curves(grid=grid, smooth=tuple(smooth))

    @property
    def affine(self) -> str:
        """Name the last axis."""
        return list(self.grid.axes)[-1]

    @property
    def enumerated(self) -> tuple[str, ...]:
        """Name the axes that are neither affine nor interpolated."""
        return tuple(n for n in self.grid.axes if n not in (*self.smooth, self.affine))

    @property
    def computed(self) -> int:
        """Count the points whose logits are held at once."""
        return int(NODES ** len(self.smooth))

    def agree(self, line: Line, logits: Logits) -> bool:
        """Tell whether (1) and (2) agree with the logits at some points off the nodes."""
        axes = self.grid.axes
        off = [[v[len(v) // 30], v[len(v) // 3], v[-1 - len(v) // 20]] for v in self._values()]
        lift = _product([interpolation(v, o) for v, o in zip(self._values(), off, strict=True)])
        other = {n: float(axes[n][-1]) for n in self.enumerated}
        z, v = self._stacked(line, other)
        a = max((float(x) for x in axes[self.affine]), key=abs)
        for weights, point in zip(lift.to(z), itertools.product(*off), strict=True):
            interpolated = torch.tensordot(weights, z + a * v, 1)
            here = dict(zip(self.smooth, map(float, point), strict=True))
            exact = logits({**other, **here, self.affine: a})
            if not bool((interpolated - exact).abs().max() <= TOLERANCE * exact.abs().max()):
                return False  # also where one of them is not finite
        return True

    def correct(self, line: Line, labels: Int64[Tensor, " n"]) -> Int64[Tensor, " g"]:
        """Count the rows answered correctly at every point, in the grid's order."""
        axes = self.grid.axes
        correct = torch.zeros(
            [len(v) for v in axes.values()], dtype=torch.int64, device=labels.device
        )
        lift = _product([interpolation(v, v) for v in self._values()])
        for place in itertools.product(*(range(len(axes[n])) for n in self.enumerated)):
            at = dict(zip(self.enumerated, place, strict=True))
            z, v = self._stacked(line, {n: float(axes[n][i]) for n, i in at.items()})
            a = z.new_tensor([float(x) for x in axes[self.affine]])
            where = tuple(at.get(n, slice(None)) for n in axes)
            correct[where] = count(z, v, labels, lift.to(z), a).reshape(correct[where].shape)
        return correct.flatten()

    def _values(self) -> list[Sequence[float]]:
        return [self.grid.axes[n] for n in self.smooth]

    def _stacked(self, line: Line, other: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Return z and v of (1) at every node, [e n c] each."""
        axes = [nodes(v).tolist() for v in self._values()]
        points = (dict(zip(self.smooth, p, strict=True)) for p in itertools.product(*axes))
        lines = [line({**other, **point}) for point in points]
        return torch.stack([z for z, _ in lines]), torch.stack([v for _, v in lines])


def count(
    z: Float[Tensor, "e n c"],
    v: Float[Tensor, "e n c"],
    labels: Int64[Tensor, " n"],
    lift: Float[Tensor, "b e"],
    a: Float[Tensor, " a"],
) -> Int64[Tensor, "b a"]:
    """Count correct rows at every b and a, from z and v of (1) at the nodes."""
    target = labels[None, :, None].expand(len(z), -1, 1)
    q, p = (
        z - z.gather(-1, target),
        v - v.gather(-1, target),
    )  # a wrong class wins where q + a p > 0
    most = torch.maximum(_upper_bound(q + a.min() * p), _upper_bound(q + a.max() * p))
    row, wrong = (most >= 0).scatter(1, labels[:, None], value=False).nonzero(as_tuple=True)
    lower = z.new_full((len(labels), len(lift)), -math.inf)
    upper = z.new_full((len(labels), len(lift)), math.inf)
    for some in _blocks(len(row), max(1, BLOCK // len(lift))):
        r, c = row[some], wrong[some]
        line_q, line_p = q[:, r, c].mT @ lift.mT, p[:, r, c].mT @ lift.mT  # [pairs b]
        meet = -line_q / line_p
        below = torch.where(line_p < 0, meet, -math.inf)
        above = torch.where(line_p > 0, meet, math.inf)
        level = line_p == 0  # correct at every a or at none; argmax breaks ties by the lower index
        if bool(level.any()):
            first = (c < labels[r])[:, None]
            below.masked_fill_(level & ((line_q > 0) | (line_q == 0) & first), math.inf)
        rows = r[:, None].expand_as(meet)
        lower.scatter_reduce_(0, rows, below, "amax")
        upper.scatter_reduce_(0, rows, above, "amin")
    return torch.stack([((lower < x) & (x < upper)).sum(0) for x in a], dim=1)


def _upper_bound(curve: Float[Tensor, "e n c"]) -> Float[Tensor, "n c"]:
    """Return an upper bound of a curve: its nodes, and SLACK of the jumps between them."""
    if len(curve) == 1:
        return curve[0]
    jump = (curve[1:] - curve[:-1]).abs()
    near = torch.cat([jump[:1], jump, jump[-1:]])
    near = torch.maximum(torch.maximum(near[:-2], near[2:]), jump)
    return (torch.maximum(curve[1:], curve[:-1]) + SLACK * near).amax(0)


def nodes(values: Sequence[float]) -> Float64[np.ndarray, " e"]:
    """Return the Chebyshev points of the range of some values, both ends included."""
    low, high = float(min(values)), float(max(values))
    return low + (high - low) * (1 - np.cos(np.pi * np.arange(NODES) / (NODES - 1))) / 2


def interpolation(values: Sequence[float], at: Sequence[float]) -> Float64[Tensor, "b e"]:
    """Return the matrix of (2): the polynomials L_j of an axis at some of its values."""
    at_nodes = nodes(values)
    weight = np.where(np.arange(NODES) % 2, -1.0, 1.0)  # barycentric, of Chebyshev points
    weight[[0, -1]] /= 2
    gap = np.asarray(at, dtype=float)[:, None] - at_nodes
    met = np.isclose(gap, 0, atol=1e-12)
    share = weight / np.where(met, 1.0, gap)
    share /= share.sum(-1, keepdims=True)
    return torch.from_numpy(np.where(met.any(-1, keepdims=True), met.astype(float), share))


def _product(matrices: Sequence[Tensor]) -> Float64[Tensor, "b e"]:
    """Combine the axes' matrices as `itertools.product` combines their points."""
    whole = torch.ones(1, 1, dtype=torch.float64)
    for matrix in matrices:
        whole = torch.kron(whole, matrix)
    return whole


def _blocks(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, start + size)
