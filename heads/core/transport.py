"""Entropic optimal transport between small sets: one Sinkhorn for a whole batch of problems.

    gamma = argmin_{gamma >= 0} <gamma, M> + reg sum_ij gamma_ij (log gamma_ij - 1)         (1)
            subject to gamma 1 = a, gamma^T 1 = b
    gamma = diag(u) K diag(v),   K = exp(-M / reg)                                           (2)
    u <- a / (K v),   v <- b / (K^T u),   from u = 1, v = 1 (0 where b is)                   (3)

    M [k m] cost     gamma [k m] plan     a [k], b [m] marginals     reg > 0

Problems stand in the leading axes. Sets of unequal size are padded: a row or column of mass 0
gets no transport whatever its cost, so the marginals are the mask. (3) ends, for each problem by
itself, when mean_i |u_i - u_i'| < tol between two rounds; columns are scaled last, so that
gamma^T 1 = b holds exactly. K is formed as it stands: |M| / reg must stay below 87 in float32.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import UsageError

Real = float | Tensor

BLOCK_BYTES = 2**19
"""Of K for the problems that are solved together on a CPU, so that all rounds stay in its cache."""
SMALL = 400
"""Entries of K below which `torch.bmm` leaves the fast library on a CPU; a broadcast product is up
to three times faster there, as long as it stays in the cache."""


def sinkhorn(
    cost: Float[Tensor, "*s k m"],
    a: Float[Tensor, "*#s k"],
    b: Float[Tensor, "*#s m"],
    reg: Real,
    *,
    max_iter: int = 100,
    tol: Real | None = 1e-2,
) -> Float[Tensor, "*s k m"]:
    """Return the plans of a batch of problems; arguments as `scalings`."""
    if cost.shape[-1] < cost.shape[-2]:
        cost = cost.mT.contiguous().mT  # rows of memory as long as can be: twice as fast
    kernel = torch.exp(-cost / reg)
    u, v = scalings(kernel, a, b, max_iter=max_iter, tol=tol)
    return u[..., None] * kernel * v[..., None, :]


def match(
    similarity: Float[Tensor, "*s k m"],
    a: Float[Tensor, "*#s k"],
    b: Float[Tensor, "*#s m"],
    reg: Real,
    *,
    max_iter: int = 100,
    tol: Real | None = 1e-2,
    left_out: int = 0,
) -> Float[Tensor, "*s"]:
    """Return <gamma, S> of the plans that cost 1 - S; arguments as `scalings`.

    The plans themselves are never built.
    """
    kernel = (similarity / reg).sub_(1 / reg).exp_()
    u, v = scalings(kernel, a, b, max_iter=max_iter, tol=tol, left_out=left_out)
    weighted = (kernel * similarity).reshape(-1, *kernel.shape[-2:])
    columns = _times(u.reshape(-1, u.shape[-1]), weighted)
    return (columns.reshape(v.shape) * v).sum(-1)


def scalings(
    kernel: Float[Tensor, "*s k m"],
    a: Float[Tensor, "*#s k"],
    b: Float[Tensor, "*#s m"],
    *,
    max_iter: int = 100,
    tol: Real | None = 1e-2,
    left_out: int = 0,
) -> tuple[Float[Tensor, "*s k"], Float[Tensor, "*s m"]]:
    """Run (3) and return u and v.

    Args:
        kernel: K of (2), positive.
        a: Mass of the rows; 0 where there is none.
        b: Mass of the columns, of the same sum.
        max_iter: Most rounds.
        tol: A problem is left alone once u moved less, on average over its rows, in a round;
            None always takes `max_iter` rounds and can be differentiated.
        left_out: Rows of mass 0 that each problem has beside these; they only count in that
            average, where their u falls from 1 to 0 in the first round.
    """
    lead, (k, m) = kernel.shape[:-2], kernel.shape[-2:]
    flat = kernel.reshape(-1, k, m)
    a, b = (t.expand(*lead, t.shape[-1]).reshape(-1, t.shape[-1]) for t in (a, b))
    size = len(flat)
    if kernel.device.type == "cpu":
        size = max(1, BLOCK_BYTES // max(1, k * m * kernel.element_size()))
    solved = [
        _rounds(flat[i : i + size], a[i : i + size], b[i : i + size], max_iter, tol, left_out)
        for i in range(0, max(1, len(flat)), max(1, size))
    ]
    u, v = (torch.cat(parts) for parts in zip(*solved, strict=True))
    return u.reshape(*lead, k), v.reshape(*lead, m)


def _rounds(
    kernel: Float[Tensor, "s k m"],
    a: Float[Tensor, "s k"],
    b: Float[Tensor, "s m"],
    max_iter: int,
    tol: Real | None,
    left_out: int,
) -> tuple[Float[Tensor, "s k"], Float[Tensor, "s m"]]:
    """Run (3) on problems that fit into a cache."""
    u, v = torch.ones_like(a), (b > 0).to(b)  # a column of mass 0 has no say from the start
    ended: Tensor | None = None  # [s 1]; None while no problem has
    for step in range(max_iter):
        rows = a / _times(v, kernel.mT)
        columns = b / _times(rows, kernel)
        if tol is None:
            u, v = rows, columns
            continue
        fell = left_out if step == 0 else 0
        count = rows.shape[-1] + left_out
        still = ((rows - u).abs().sum(-1, keepdim=True) + fell) / count < tol
        if ended is not None:
            rows, columns = torch.where(ended, u, rows), torch.where(ended, v, columns)
            still = still | ended
        u, v, ended = rows, columns, still
        if may_branch():
            if bool(ended.all()):
                break
            if not bool(ended.any()):
                ended = None
    return u, v


def may_branch() -> bool:
    """Tell whether a value may be looked at: not inside `torch.func.vmap` and its like."""
    return torch._C._functorch.peek_interpreter_stack() is None


def pot_plan(
    cost: Float[Tensor, "*s k m"],
    a: Float[Tensor, "*#s k"],
    b: Float[Tensor, "*#s m"],
    reg: Real,
    *,
    max_iter: int = 10_000,
    tol: float = 1e-9,
) -> Float[Tensor, "*s k m"]:
    """Solve (1) problem by problem with POT, in float64 and the log domain; slow, an oracle.

    Args:
        cost: M.
        a: Mass of the rows; 0 marks padding.
        b: Mass of the columns; 0 marks padding.
        reg: Weight of the entropy.
        max_iter: Most rounds.
        tol: Largest error of a marginal.

    Raises:
        UsageError: If POT is not installed.
    """
    ot = _pot()
    lead, (k, m) = cost.shape[:-2], cost.shape[-2:]
    problems = cost.detach().double().cpu().reshape(-1, k, m)
    rows = a.detach().double().cpu().expand(*lead, k).reshape(-1, k)
    columns = b.detach().double().cpu().expand(*lead, m).reshape(-1, m)
    plans = torch.zeros_like(problems)
    for plan, one, p, q in zip(plans, problems, rows, columns, strict=True):
        i, j = p.nonzero()[:, 0], q.nonzero()[:, 0]
        q = q * (p.sum() / q.sum())  # as float32 they may differ by more than tol
        solved = ot.sinkhorn(
            p[i].numpy(),
            q[j].numpy(),
            one[i][:, j].numpy(),
            float(reg),
            method="sinkhorn_log",
            numItermax=max_iter,
            stopThr=tol,
        )
        plan[i[:, None], j] = torch.from_numpy(solved)
    return plans.reshape(*lead, k, m).to(cost)


def _times(vector: Float[Tensor, "s k"], matrix: Float[Tensor, "s k m"]) -> Float[Tensor, "s m"]:
    """Return vector @ matrix for each problem."""
    if vector.device.type == "cpu" and matrix.shape[-2] * matrix.shape[-1] < SMALL:
        return (vector[..., None] * matrix).sum(-2)
    return torch.bmm(vector[:, None], matrix)[:, 0]  # as a row: three times faster than a column


def _pot() -> Any:
    try:
        import ot
    except ImportError as error:
        raise UsageError(
            "This solver needs the package POT, which is not installed. "
            "Install it with: pip install 'featcache[ot]', or take the built-in sinkhorn."
        ) from error
    return ot
