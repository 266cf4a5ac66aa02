"""Multinomial logistic regression, solved to the optimum: L-BFGS in principal coordinates.

    min over W, b of  1/n sum_i w_i CE(x_i W^T + b, y_i) + 1/(2 C n) |W|^2         (1)

What makes it fast, without changing the answer:

    coordinates  x is rotated to its principal axes (with n < d: the span of the rows, where the
                 best W lies), and L-BFGS starts each step from the diagonal of the Hessian there
    line search  by the slope along the step, which needs no matrix product
    precision    float32 as far as it goes, which is mostly all the way, as the error of a row whose
                 own class is near certain keeps its digits; float64 judges and finishes
    path         a weak penalty is reached by decades of C, each starting from the last; a search
                 over C starts each from the nearest that it has solved, and solves it roughly

A step costs two products of [n d] and [d c]. It is done when half the slope along the step, the
decrease that is left by the quadratic model, is below 1e-9 of the value, in a search 1e-5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

DONE = 1e-9
"""Decrease left, as a share of the value, at which (1) counts as solved."""
DONE_ON_PATH = 1e-2
"""How well the decades of C before the last are solved."""
DONE_ROUGHLY = 1e-5
"""How well a point of a search is solved: right answers differ by one or two in a thousand."""
LEAST = 2
"""Steps of a rough solution at least: under a strong penalty even none costs little more."""
MEMORY = 10
"""Pairs that L-BFGS keeps; 50 saved a tenth of the steps and cost more."""
REFRESH = 10
"""Steps between two diagonals of the Hessian."""
STALLED = 60
"""Steps of float32 without half the decrease left, after which float64 takes over."""
TRIALS = 20
"""Step lengths tried along one direction."""


def logistic_regression(
    x: Float64[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    row_weights: Float64[Tensor, " n"],
    classes: int,
    strength: float,
    *,
    max_iter: int = 1000,
) -> tuple[Float64[Tensor, "c d"], Float64[Tensor, " c"], float]:
    """Minimise (1).

    Args:
        x: Rows; any common direction of them is taken off first, which changes nothing else.
        y: Class of each row.
        row_weights: Weight of each row.
        classes: Number of classes.
        strength: C.
        max_iter: Steps at most, for each precision and decade of C.

    Returns:
        Weights, intercepts, and the decrease left as a share of the value.
    """
    rotated = _Rotated(x, y, row_weights)
    path = [(c, torch.float32, DONE_ON_PATH) for c in _decades(strength) if c < strength / 5]
    stages = [*path, (strength, torch.float32, DONE), (strength, torch.float64, DONE)]
    weight, left = rotated.walk(rotated.zeros(classes), stages, max_iter)
    return *rotated.back(weight), left


class RoughPath:
    """(1) solved roughly for many C, each from the nearest one before it."""

    def __init__(
        self,
        x: Float64[Tensor, "n d"],
        y: Int64[Tensor, " n"],
        row_weights: Float64[Tensor, " n"],
        classes: int,
        *,
        max_iter: int = 1000,
    ) -> None:
        """Rotate the rows; arguments as `logistic_regression`."""
        self._rotated = _Rotated(x, y, row_weights)
        self._start, self._max_iter = self._rotated.zeros(classes), max_iter
        self._solved: dict[float, Float64[Tensor, "c r"]] = {}

    def solve(self, strength: float) -> tuple[Float64[Tensor, "c d"], Float64[Tensor, " c"]]:
        """Return weights and intercepts."""
        if strength not in self._solved:
            near = min(self._solved, key=lambda c: abs(math.log(c / strength)), default=0.0)
            path = [c for c in _decades(strength) if 5 * near < c < strength / 5]
            stages = [(c, torch.float32, DONE_ON_PATH) for c in path]
            stages.append((strength, torch.float32, DONE_ROUGHLY))
            start = self._solved.get(near, self._start)
            self._solved[strength], _ = self._rotated.walk(start, stages, self._max_iter, LEAST)
        return self._rotated.back(self._solved[strength])


def _decades(strength: float) -> list[float]:
    """List the powers of ten from 1 to below a strength."""
    return [10.0**k for k in range(math.ceil(math.log10(strength)))] if strength > 1 else []


class _Rotated:
    """Rows in principal coordinates, and the way there and back."""

    def __init__(
        self, x: Float64[Tensor, "n d"], y: Int64[Tensor, " n"], row_weights: Float64[Tensor, " n"]
    ) -> None:
        self.y, self.row_weights, self.centre = y, row_weights, x.mean(0)
        coordinates, self.axes = principal(x - self.centre)
        self.rows = torch.cat([coordinates, coordinates.new_ones(len(x), 1)], dim=1)  # [n r+1]
        self.free = torch.ones_like(self.rows[0])
        self.free[-1] = 0.0  # intercepts are not penalised

    def zeros(self, classes: int) -> Float64[Tensor, "c r"]:
        return self.rows.new_zeros(classes, self.rows.shape[1])

    def walk(
        self,
        weight: Float64[Tensor, "c r"],
        stages: Sequence[tuple[float, torch.dtype, float]],
        max_iter: int,
        least: int = 0,
    ) -> tuple[Float64[Tensor, "c r"], float]:
        """Go through stages of (C, precision, decrease left); return weights and what is left."""
        n, last = len(self.rows), stages[-1][0]
        pairs: list[_Pair] = []
        left = math.inf
        for c, dtype, done in stages:
            own, penalty = (self.row_weights / n).to(dtype), (self.free / (c * n)).to(dtype)
            problem = _Problem(self.rows.to(dtype), self.y, own, penalty)
            walk = _Walk(problem, weight.to(dtype), [p.to(dtype) for p in pairs])
            left = walk.run(done, max_iter, least)
            weight = walk.weight.double()
            pairs = walk.pairs if c == last else []
        return weight, left

    def back(
        self, weight: Float64[Tensor, "c r"]
    ) -> tuple[Float64[Tensor, "c d"], Float64[Tensor, " c"]]:
        found = weight[:, :-1] @ self.axes
        return found, weight[:, -1] - found @ self.centre


def principal(
    x: Float64[Tensor, "n d"],
) -> tuple[Float64[Tensor, "n r"], Float64[Tensor, "r d"]]:
    """Return coordinates along orthonormal axes, so that x = coordinates @ axes."""
    if len(x) >= x.shape[1]:
        _, vectors = torch.linalg.eigh(x.mT @ x)
        return x @ vectors, vectors.mT
    squares, vectors = torch.linalg.eigh(x @ x.mT)
    kept = squares > 1e-13 * squares[-1]
    lengths, vectors = squares[kept].sqrt(), vectors[:, kept]
    return vectors * lengths, (vectors / lengths).mT @ x


class _Problem:
    """Equation (1) at one C and precision."""

    def __init__(
        self,
        x: Float[Tensor, "n r"],
        y: Int64[Tensor, " n"],
        row_weights: Float[Tensor, " n"],
        penalty: Float[Tensor, " r"],
    ) -> None:
        self.x, self.squares = x, x.square()  # the last column is 1
        self.own = torch.arange(len(y), device=y.device), y  # each row's label in [n c]
        self.row_weights, self.penalty = row_weights, penalty

    def wrong(self, logits: Float[Tensor, "n c"]) -> tuple[Tensor, Tensor]:
        """Return the probabilities with 0 for the own class, and their sums.

        1 - p of the own class would lose its digits in float32 where p is near 1.
        """
        others = torch.softmax(logits, dim=1)
        others[self.own] = 0.0
        return others, others.sum(1)

    def residual(self, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return the gradient of the fit by the logits."""
        others, missed = self.wrong(logits)
        others[self.own] = -missed
        return others.mul_(self.row_weights[:, None])

    def gradient(
        self, residual: Float[Tensor, "n c"], weight: Float[Tensor, "c r"]
    ) -> Float[Tensor, "c r"]:
        return torch.addcmul(residual.mT @ self.x, self.penalty, weight)

    def curvature(self, logits: Float[Tensor, "n c"]) -> Float[Tensor, "c r"]:
        """Return the diagonal of the Hessian, kept off zero."""
        p, missed = self.wrong(logits)
        p[self.own] = missed  # p (1 - p) is the same for 1 - p
        spread = (p - p.square()).mul_(self.row_weights[:, None])
        found = spread.mT @ self.squares + self.penalty
        return found.clamp_min(1e-12 * float(found.max()))

    def value(self, logits: Float[Tensor, "n c"], weight: Float[Tensor, "c r"]) -> float:
        _, missed = self.wrong(logits)
        plain = logits.logsumexp(1) - logits[self.own]
        fit = torch.where(missed < 0.5, -torch.log1p(-missed), plain).double()
        pull = (self.penalty * weight.square()).sum()
        return float(fit @ self.row_weights.double() + 0.5 * pull)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A step and the change of the gradient over it."""

    step: Tensor
    change: Tensor
    product: float

    def to(self, dtype: torch.dtype) -> "_Pair":
        return _Pair(step=self.step.to(dtype), change=self.change.to(dtype), product=self.product)


class _Walk:
    """The steps at one C and precision."""

    def __init__(self, problem: _Problem, weight: Tensor, pairs: list[_Pair]) -> None:
        self.problem, self.weight, self.pairs = problem, weight, pairs
        self.logits = problem.x @ weight.mT
        self.slopes = problem.gradient(problem.residual(self.logits), weight)
        self.diagonal = problem.curvature(self.logits)

    def run(self, done: float, max_iter: int, least: int) -> float:
        """Step until the decrease left is below `done` of the value; return that share."""
        best, since = math.inf, 0
        value = self.problem.value(self.logits, self.weight)
        for at in range(max_iter + 1):
            if at and at % REFRESH == 0:
                self.logits = self.problem.x @ self.weight.mT  # sums of steps drift
                self.diagonal = self.problem.curvature(self.logits)
            direction = self.direction()
            slope = _dot(self.slopes, direction)
            left = -slope / 2
            if not left > done * value:  # the value only falls, so an old one decides no less
                value = self.problem.value(self.logits, self.weight)
            if left < best / 2:
                best, since = left, at
            stalled = self.weight.dtype == torch.float32 and at - since > STALLED
            is_done = not left > done * value and (at >= least or math.isnan(left))
            if is_done or stalled or at == max_iter:
                break
            self.move(direction, slope)
        return abs(left) / self.problem.value(self.logits, self.weight)

    def direction(self) -> Tensor:
        """Return the L-BFGS step: the pairs' curvature over the diagonal of the Hessian."""
        q = self.slopes.clone()
        shares = []
        for pair in reversed(self.pairs):
            share = _dot(pair.step, q) / pair.product
            q.sub_(pair.change, alpha=share)
            shares.append(share)
        h = q / self.diagonal
        if self.pairs:
            last = self.pairs[-1]
            size = _dot(last.change, last.change / self.diagonal)
            h.mul_(last.product / size if size > 0 else 1.0)  # squares of tiny changes vanish
        for pair, share in zip(self.pairs, reversed(shares), strict=True):
            h.add_(pair.step, alpha=share - _dot(pair.change, h) / pair.product)
        return h.neg_()

    def move(self, direction: Tensor, slope: float) -> None:
        """Go along a direction until the slope has at most half its size."""
        problem = self.problem
        change = problem.x @ direction.mT  # of the logits
        pull = problem.penalty * direction
        constant, linear = _dot(pull, self.weight), _dot(pull, direction)
        low, low_slope, high, high_slope = 0.0, slope, math.inf, 0.0
        length = 1.0
        for _ in range(TRIALS):
            residual = problem.residual(torch.add(self.logits, change, alpha=length))
            here = _dot(residual, change) + constant + length * linear
            if abs(here) <= -slope / 2:
                break
            if here > 0:
                high, high_slope = length, here
            else:
                low, low_slope = length, here
            if math.isinf(high):
                length *= 2
            else:  # where the slope would be 0 if it were straight, off the ends
                cut = low + (high - low) * low_slope / (low_slope - high_slope)
                margin = 0.1 * (high - low)
                length = min(max(cut, low + margin), high - margin)
        step = length * direction
        self.weight = self.weight + step
        self.logits = self.logits.add(change, alpha=length)
        slopes = problem.gradient(residual, self.weight)
        bend = slopes - self.slopes
        product = _dot(step, bend)
        if product > 0:
            self.pairs = [*self.pairs, _Pair(step=step, change=bend, product=product)][-MEMORY:]
        self.slopes = slopes


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()))
