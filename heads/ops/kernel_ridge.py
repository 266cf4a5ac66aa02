"""Kernel ridge regression with an exponential kernel, and a search over its two numbers.

    k(x, z) = exp(-beta (1 - x z^T))      K = k(X, X)                          (1)
    A = D (D K D + lam I)^-1 D R          or lam times that                    (2)

    X [m d] support points, unit          R [m c] what is to be explained
    D [m m] diagonal, square roots of the weights of the points; without weights the identity

A search solves at few values of beta and lam, in float32, and the answers in between are
polynomials through those:

    answers(beta, lam) = sum_ij L_i(beta) M_j(sqrt lam) answers(beta_i, lam_j)   (3)
"""

from collections.abc import Iterator, Sequence
from math import sqrt

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from heads.ops.interpolation import lagrange, leja_points

BETAS, LAMS = 6, 5
"""Values at which a search solves. The logits between them are off by 2e-3 at most on real rows,
which moves the right answers at some of 200 points by one in a thousand."""
SINGLE = 1e-4
"""Values of lam from which float32 tells the system from a singular one."""


def affinity(
    x: Float[Tensor, "n d"], points: Float[Tensor, "m d"], beta: float | Tensor
) -> Float[Tensor, "n m"]:
    """Return k of (1) for all pairs of unit rows."""
    return (beta * (x @ points.mT - 1)).exp()


def solve(
    kernel: Float[Tensor, "m m"],
    residual: Float[Tensor, "m c"],
    lam: float,
    *,
    scaled: bool,
    weights: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "m c"]:
    """Return A of (2), times lam where it is `scaled`; the kernel is overwritten.

    Args:
        kernel: K of (1).
        residual: R.
        lam: The penalty.
        scaled: Whether A is multiplied by lam.
        weights: Weight of each point, above 0; None is 1 everywhere.

    Example:
        >>> solve(torch.eye(2), torch.ones(2, 1), 1.0, scaled=False)
        tensor([[0.5000],
                [0.5000]])
    """
    if weights is not None:
        roots = weights.to(kernel).sqrt()[:, None]
        found = solve(kernel.mul_(roots).mul_(roots.mT), roots * residual, lam, scaled=scaled)
        return roots * found
    kernel.diagonal().add_(lam)
    factor, failed = torch.linalg.cholesky_ex(kernel)
    if int(failed):  # singular in this precision: equal points and a tiny lam
        found = torch.linalg.pinv(kernel, hermitian=True) @ residual
    else:
        found = torch.cholesky_solve(residual, factor)
    return lam * found if scaled else found


class RoughPath:
    """(2) solved at few values of beta and lam, and (3) between them."""

    def __init__(
        self,
        x: Float[Tensor, "m d"],
        residual: Float64[Tensor, "m c"],
        *,
        scaled: bool,
        weights: Float[Tensor, " m"] | None = None,
    ) -> None:
        """Remember the problem; arguments as `solve`."""
        self._x, self._residual, self._scaled, self._weights = x, residual, scaled, weights
        self._solved: dict[tuple[float, float], Tensor] = {}

    def answers(
        self, points: Sequence[tuple[float, float]], rows: Float[Tensor, "n d"]
    ) -> Iterator[Float[Tensor, "n c"]]:
        """Return k(rows, X) A at each (beta, lam), in their order."""
        betas = leja_points((beta for beta, _ in points), BETAS)
        roots = leja_points((sqrt(lam) for _, lam in points), LAMS)
        known = {sqrt(lam): lam for _, lam in points}
        lams = [known[root] for root in roots]
        known_at = torch.stack(
            [affinity(rows, self._x, beta) @ self._solve(beta, lams) for beta in betas]
        )
        known_at = known_at.reshape(len(betas), len(rows), len(lams), -1)
        known_at = known_at.transpose(1, 2).flatten(0, 1)  # [e n c]
        for beta, lam in points:
            by_beta, by_lam = lagrange(betas, beta), lagrange(roots, sqrt(lam))
            weights = known_at.new_tensor([b * m for b in by_beta for m in by_lam])  # [e]
            yield torch.tensordot(weights, known_at, 1)

    def _solve(self, beta: float, lams: Sequence[float]) -> Float[Tensor, "m e"]:
        """Return the solutions beside each other, e = lams times c."""
        x, kernels = self._x, dict[torch.dtype, Tensor]()
        for lam in lams:
            if (beta, lam) not in self._solved:
                dtype = torch.float32 if lam >= SINGLE else torch.float64
                if dtype not in kernels:
                    kernels[dtype] = affinity(x.to(dtype), x.to(dtype), beta)
                system, right = kernels[dtype].clone(), self._residual.to(dtype)
                solved = solve(system, right, lam, scaled=self._scaled, weights=self._weights)
                self._solved[beta, lam] = solved.to(x)
        return torch.cat([self._solved[beta, lam] for lam in lams], dim=1)
