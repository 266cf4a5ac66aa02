import math
import sys
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featcache.errors import UsageError
from heads.ops import sinkhorn as transport
from heads.ops.sinkhorn import match, pot_match, pot_plan, scalings

Problem = tuple[Tensor, Tensor, Tensor]


def problem(seed: int, *lead: int, k: int = 7, m: int = 4) -> Problem:
    """Costs like 1 - cosine and marginals that are not uniform, in float64."""
    rng = torch.Generator().manual_seed(seed)
    cost = torch.rand(*lead, k, m, generator=rng, dtype=torch.float64)
    a = 0.1 + torch.rand(*lead, k, generator=rng, dtype=torch.float64)
    b = 0.1 + torch.rand(*lead, m, generator=rng, dtype=torch.float64)
    return cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


def turned(t: Tensor) -> Tensor:
    """[n c k m] to [k n m c], the layout of `match` and `scalings`."""
    return t.permute(2, 0, 3, 1)


def with_axes(cost: Tensor, a: Tensor, b: Tensor) -> Problem:
    return cost, a[..., None], b[..., None, :]


def sinkhorn(cost: Tensor, a: Tensor, b: Tensor, reg: float | Tensor, **more: Any) -> Tensor:
    """The plans of `scalings`, problems in front."""
    lead, (k, m) = cost.shape[:-2], cost.shape[-2:]
    p, q = a.expand(*lead, k), b.expand(*lead, m)
    each = (cost.reshape(-1, 1, k, m), p.reshape(-1, 1, k), q.reshape(-1, 1, m))
    costs, rows, columns = (turned(t) for t in with_axes(*each))
    kernel = torch.exp(costs / -reg)
    u, v = scalings(kernel, rows, columns, **more)
    return (u * kernel * v).permute(1, 3, 0, 2).reshape(cost.shape)


def matched(similarity: Tensor, a: Tensor, b: Tensor, reg: float, **more: Any) -> Tensor:
    """`match` of problems with two axes [n c] in front."""
    cost, p, q = (turned(t) for t in with_axes(similarity, a, b))
    return match(cost, p, q, reg, **more)


def naive(
    cost: Tensor, a: Tensor, b: Tensor, reg: float, *, rounds: int = 100, tol: float = 1e-2
) -> tuple[list[list[float]], int]:
    """Equations (2) and (3) for one problem, one scalar at a time; also how many rounds."""
    k, m = cost.shape
    kernel = [[math.exp(-float(cost[i, j]) / reg) for j in range(m)] for i in range(k)]
    u, v = [1.0] * k, [1.0] * m
    used = 0
    while used < rounds:
        used, before = used + 1, u
        u = [float(a[i]) / sum(kernel[i][j] * v[j] for j in range(m)) for i in range(k)]
        v = [float(b[j]) / sum(kernel[i][j] * u[i] for i in range(k)) for j in range(m)]
        if sum(abs(x - y) for x, y in zip(u, before, strict=True)) / k < tol:
            break
    return [[u[i] * kernel[i][j] * v[j] for j in range(m)] for i in range(k)], used


@pytest.mark.parametrize(("k", "m"), [(7, 4), (4, 7), (1, 3), (3, 1), (45, 11)])
@pytest.mark.parametrize("reg", [0.1, 0.5])
def test_plan_equals_naive_loops(k: int, m: int, reg: float) -> None:
    """Cost matrices longer and wider than tall."""
    cost, a, b = problem(0, 3, k=k, m=m)
    got = sinkhorn(cost, a, b, reg)
    for i in range(3):
        expected, _ = naive(cost[i], a[i], b[i], reg)
        torch.testing.assert_close(got[i], torch.tensor(expected, dtype=torch.float64))


def test_every_problem_stops_by_itself() -> None:
    """Sharp and flat problems need different rounds; neither may change the other's plan."""
    cost, a, b = problem(1, 12)
    cost = cost * torch.linspace(0.02, 1.5, 12, dtype=torch.float64)[:, None, None]
    rounds = [naive(c, p, q, 0.1)[1] for c, p, q in zip(cost, a, b, strict=True)]
    assert len(set(rounds)) > 2
    together = sinkhorn(cost, a, b, 0.1)
    for i in range(12):
        expected, _ = naive(cost[i], a[i], b[i], 0.1)
        torch.testing.assert_close(together[i], torch.tensor(expected, dtype=torch.float64))
        torch.testing.assert_close(together[i], sinkhorn(cost[i], a[i], b[i], 0.1))


def test_most_rounds_are_kept_to() -> None:
    cost, a, b = problem(2)
    for rounds in (1, 2, 5):
        expected, _ = naive(cost, a, b, 0.05, rounds=rounds, tol=0.0)
        torch.testing.assert_close(
            sinkhorn(cost, a, b, 0.05, max_iter=rounds, tol=None),
            torch.tensor(expected, dtype=torch.float64),
        )


@given(seed=st.integers(0, 10_000), reg=st.sampled_from([0.1, 0.3, 1.0]))
@settings(max_examples=25)
def test_marginals(seed: int, reg: float) -> None:
    cost, a, b = problem(seed, 2, 3)
    plan = sinkhorn(cost, a, b, reg, max_iter=5000, tol=1e-13)
    assert bool((plan >= 0).all())
    torch.testing.assert_close(plan.sum(-2), b, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(plan.sum(-1), a, rtol=1e-7, atol=1e-9)
    early = sinkhorn(cost, a, b, reg)
    torch.testing.assert_close(early.sum(-2), b, rtol=1e-12, atol=1e-14)  # columns come last


@given(seed=st.integers(0, 10_000), rows=st.integers(0, 3), columns=st.integers(0, 3))
@settings(max_examples=25)
def test_padding_changes_nothing(seed: int, rows: int, columns: int) -> None:
    """Rows of mass 0 count in the stop rule, so `left_out` stands for them."""
    cost, a, b = problem(seed, 2, 3)
    wide = torch.rand(2, 3, 7 + rows, 4 + columns, dtype=torch.float64)
    wide[..., :7, :4] = cost
    p, q = wide.new_zeros(2, 3, 7 + rows), wide.new_zeros(2, 3, 4 + columns)
    p[..., :7], q[..., :4] = a, b
    plan = sinkhorn(wide, p, q, 0.1)
    kernel, p_left, q_left = map(turned, with_axes(torch.exp(-cost / 0.1), a, b))
    u, v = scalings(kernel, p_left, q_left, left_out=rows)
    torch.testing.assert_close(turned(plan[..., :7, :4]), u * kernel * v)
    assert float(plan[..., 7:, :].abs().sum() + plan[..., 4:].abs().sum()) == 0
    one, left = 1 - wide, 1 - cost
    torch.testing.assert_close(matched(one, p, q, 0.1), matched(left, a, b, 0.1, left_out=rows))


def test_left_out_rows_count_in_the_first_round() -> None:
    """A tolerance so loose that round 1 could end it: the u of left-out rows falls from 1 to 0."""
    cost, a, b = (turned(t) for t in with_axes(*problem(13, 1, 1, k=2, m=3)))
    kernel = torch.exp(-cost / 0.1)
    wide, p = torch.cat([kernel, kernel]), torch.cat([a, torch.zeros_like(a)])
    once, _ = scalings(kernel, a, b, max_iter=1, tol=None)
    twice, _ = scalings(kernel, a, b, max_iter=2, tol=None)
    moved = (float((once - 1).abs().sum()) + 2) / 4  # by hand, two of four rows left out
    later = float((twice - once).abs().sum()) / 4
    assert later < 0.9 * moved
    for tol, expected in ((1.01 * moved, once), (0.99 * moved, twice)):
        u, _ = scalings(kernel, a, b, tol=tol, left_out=2)
        torch.testing.assert_close(u, expected)
        u, _ = scalings(wide, p, b, tol=tol)
        torch.testing.assert_close(u[:2], expected)


def test_score_is_the_product_of_plan_and_similarity() -> None:
    cost, a, b = problem(3, 2, 5)
    expected = (sinkhorn(cost, a, b, 0.1) * (1 - cost)).sum((-2, -1))
    torch.testing.assert_close(matched(1 - cost, a, b, 0.1), expected)


def test_order_of_rows_and_columns_does_not_matter() -> None:
    cost, a, b = problem(4)
    rows, columns = torch.randperm(7), torch.randperm(4)
    turned = sinkhorn(cost[rows][:, columns], a[rows], b[columns], 0.1)
    torch.testing.assert_close(turned, sinkhorn(cost, a, b, 0.1)[rows][:, columns])


def test_a_heavy_entropy_gives_the_product_of_the_marginals() -> None:
    cost, a, b = problem(5)
    plan = sinkhorn(cost, a, b, 1e6, tol=1e-12)
    torch.testing.assert_close(plan, a[:, None] * b, rtol=1e-5, atol=1e-8)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, a, b = problem(6, 4, 5)
    scores = matched(1 - cost, a, b, 0.1)
    monkeypatch.setattr(transport, "LINE", 2)
    for size in (1, 500, 3000):  # two classes of one image, three, some images
        monkeypatch.setattr(transport, "BLOCK_BYTES", size)
        torch.testing.assert_close(matched(1 - cost, a, b, 0.1), scores)


def test_rows_and_columns_are_alike_at_the_end() -> None:
    cost, a, b = problem(6, 4, 5)
    end, turned = (
        sinkhorn(m, p, q, 0.1, max_iter=5000, tol=1e-13)
        for m, p, q in ((cost, a, b), (cost.mT, b, a))
    )
    torch.testing.assert_close(turned.mT, end)


def test_marginals_broadcast() -> None:
    cost, a, b = problem(6, 4, 5)
    similarity, p, q = (turned(t) for t in with_axes(1 - cost, a[:1, :1], b[:, :1]))
    whole = matched(1 - cost, a[:1, :1].expand_as(a), b[:, :1].expand_as(b), 0.1)
    torch.testing.assert_close(match(similarity, p, q, 0.1), whole)


def test_no_problem_at_all() -> None:
    cost, a, b = problem(7, 0)
    assert sinkhorn(cost, a, b, 0.1).shape == (0, 7, 4)
    assert matched(*problem(7, 0, 2), 0.1).shape == (0, 2)


def test_under_vmap_equals_outside() -> None:
    cost, a, b = problem(8, 6, 1, 2)
    regs = torch.tensor([0.1, 0.2], dtype=torch.float64)

    def solve(reg: Tensor, cost: Tensor) -> Tensor:
        p, q, r = (turned(t) for t in with_axes(1 - cost, a[0], b[0]))
        return match(p, q, r, reg, tol=torch.tensor(1e-2))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = torch.func.vmap(torch.func.vmap(solve, (None, 0)), (0, None))(regs, cost)
    for i, reg in enumerate(regs):
        for j in range(6):
            torch.testing.assert_close(got[i, j], matched(1 - cost[j], a[0], b[0], float(reg)))


def test_a_fixed_number_of_rounds_has_a_gradient() -> None:
    cost, a, b = problem(9, k=3, m=2)

    def value(cost: Tensor) -> Tensor:
        return (sinkhorn(cost, a, b, 0.5, max_iter=20, tol=None) * cost).sum()

    assert torch.autograd.gradcheck(value, cost.requires_grad_())


@pytest.mark.parametrize("reg", [0.05, 0.1, 1.0])
def test_plan_equals_pot(reg: float) -> None:
    pytest.importorskip("ot")
    cost, a, b = problem(10, 2, 3)
    a[0, 0, 2] = b[0, 0, 1] = 0  # padding
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    ours = sinkhorn(cost, a, b, reg, max_iter=20_000, tol=1e-14)
    torch.testing.assert_close(ours, pot_plan(cost, a, b, reg), rtol=1e-6, atol=1e-9)


def test_scores_of_pot_are_those_of_its_plans() -> None:
    pytest.importorskip("ot")
    cost, a, b = problem(14, 2, 3)
    expected = (pot_plan(cost, a, b, 0.1) * (1 - cost)).sum((-2, -1))
    similarity, p, q = (turned(t) for t in with_axes(1 - cost, a, b))
    torch.testing.assert_close(pot_match(similarity, p, q, 0.1), expected)


def test_plan_equals_pots_batched_solver() -> None:
    ot = pytest.importorskip("ot")
    cost, a, b = problem(11, 5)
    theirs = ot.solve_batch(cost, 0.1, a, b, max_iter=5000, tol=1e-12, grad="detach").plan
    torch.testing.assert_close(sinkhorn(cost, a, b, 0.1, max_iter=5000, tol=1e-13), theirs)


def test_without_pot_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    cost, a, b = problem(12)
    with pytest.raises(UsageError, match=r"pip install 'featcache\[ot\]'"):
        pot_plan(cost, a, b, 0.1)
