"""Entropic optimal transport between small sets: one Sinkhorn for a whole batch of problems.

    gamma = argmin_{gamma >= 0} <gamma, M> + reg sum_ij gamma_ij (log gamma_ij - 1)         (1)
            subject to gamma 1 = a, gamma^T 1 = b
    gamma = diag(u) K diag(v),   K = exp(-M / reg)                                           (2)
    u <- a / (K v),   v <- b / (K^T u),   from u = 1, v = 1 (0 where b is)                   (3)

    M [k m] cost     gamma [k m] plan     a [k], b [m] marginals     reg > 0

Sets of unequal size are padded: a row or column of mass 0 gets no transport whatever its cost, so
the marginals are the mask. (3) ends, for each problem by itself, when mean_i |u_i - u_i'| < tol
between two rounds; columns are scaled last, so that gamma^T 1 = b holds exactly. K is formed as it
stands: |M| / reg must stay below 87 in float32.

A batch is [k n m c], n times c problems: rows first and problems last, as the matrix product of n
images' crops with the texts of c classes leaves it. Both products of (3) are then sums along
neighbours in memory whatever k and m are, many times faster than a product of small matrices each.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import UsageError
from heads.ops.torch_private import may_be_inside

Real = float | Tensor

BLOCK_BYTES = 2**19
"""Bytes of K for the problems solved together on a CPU: all rounds stay in its cache."""
LINE = 16
"""Problems beside each other are cut at multiples of this: whole lines of the cache."""


def match(
    similarity: Float[Tensor, "k n m c"],
    a: Float[Tensor, " k #n 1 #c"],
    b: Float[Tensor, "1 #n m #c"],
    reg: Real,
    *,
    max_iter: int = 100,
    tol: Real | None = 1e-2,
    left_out: int = 0,
) -> Float[Tensor, "n c"]:
    """Return <gamma, S> of the plans that cost 1 - S; arguments as `scalings`.

    The plans themselves are never built.
    """
    k, n, m, c = similarity.shape
    a, b = a.expand(k, n, 1, c), b.expand(1, n, m, c)
    images = _size(similarity, k * m * c)
    classes = _size(similarity, k * m) if images == 1 else c
    classes = -(-c // -(-c // classes))  # parts of one size
    classes = -(-classes // LINE) * LINE
    scores = []
    for i in range(0, max(1, n), images):
        parts = []
        for j in range(0, c, classes):
            here = (slice(None), slice(i, i + images), slice(None), slice(j, j + classes))
            some = similarity[here]
            kernel = (some / reg).sub_(1 / reg).exp_()
            u, v = scalings(kernel, a[here], b[here], max_iter=max_iter, tol=tol, left_out=left_out)
            parts.append(((kernel * some * u).sum(0, keepdim=True) * v).sum((0, 2)))
        scores.append(torch.cat(parts, dim=-1))
    return torch.cat(scores)


def scalings(
    kernel: Float[Tensor, "k n m c"],
    a: Float[Tensor, " k #n 1 #c"],
    b: Float[Tensor, "1 #n m #c"],
    *,
    max_iter: int = 100,
    tol: Real | None = 1e-2,
    left_out: int = 0,
) -> tuple[Float[Tensor, "k n 1 c"], Float[Tensor, "1 n m c"]]:
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
    a, b = a.contiguous(), b.contiguous()  # u and v take their order in memory from these
    u, v = torch.ones_like(a), (b > 0).to(b)  # a column of mass 0 has no say from the start
    ended: Tensor | None = None  # [1 n 1 c]; None while no problem has
    for step in range(max_iter):
        rows = a / (kernel * v).sum(2, keepdim=True)
        columns = b / (kernel * rows).sum(0, keepdim=True)
        if tol is None:
            u, v = rows, columns
            continue
        moved = (rows - u).abs_().sum(0, keepdim=True)
        fell = left_out if step == 0 else 0
        still = moved < tol * (kernel.shape[0] + left_out) - fell
        if ended is not None:
            rows, columns = torch.where(ended, u, rows), torch.where(ended, v, columns)
            still = still | ended
        u, v, ended = rows, columns, still
        if not may_be_inside():  # a value may be looked at
            count = int(ended.sum())
            if count == ended.numel():
                break
            if count == 0:
                ended = None
    return u, v


def _size(batch: Tensor, entries: int) -> int:
    """Return how many problems, or rows of them, of so many entries go into one block."""
    if batch.device.type != "cpu":
        return max(1, batch.numel())
    return max(1, BLOCK_BYTES // max(1, entries * batch.element_size()))


def pot_match(
    similarity: Float[Tensor, "k n m c"],
    a: Float[Tensor, " k #n 1 #c"],
    b: Float[Tensor, "1 #n m #c"],
    reg: Real,
    *,
    left_out: int = 0,
) -> Float[Tensor, "n c"]:
    """Return what `match` does, of the plans of `pot_plan`; `left_out` changes nothing there."""
    pairs = similarity.permute(1, 3, 0, 2)  # [n c k m]
    p, q = a.permute(1, 3, 0, 2)[..., 0], b.permute(1, 3, 0, 2)[..., 0, :]
    lead = pairs.shape[:2]
    plan = pot_plan(1 - pairs, p.expand(*lead, -1), q.expand(*lead, -1), reg)
    return (plan * pairs).sum((-2, -1))


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


def _pot() -> Any:
    try:
        import ot
    except ImportError as error:
        raise UsageError(
            "This solver needs the package POT, which is not installed. "
            "Install it with: pip install 'featcache[ot]', or take the built-in sinkhorn."
        ) from error
    return ot
