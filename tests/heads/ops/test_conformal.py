"""Scores against slow loops, the rank rule against its definition, coverage against simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from featcache.errors import UsageError
from heads.ops.conformal import (
    class_scores,
    cross_guarantee,
    most_promised,
    rank,
    rows_needed,
    smaller,
    within,
)
from heads.ops.score_names import RULES, check_share

SHARES = st.integers(1, 999).map(lambda n: n / 1000)


def drawn(n: int, c: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return probabilities [n c], and labels that are drawn from other ones."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, c, generator=rng, dtype=torch.float64)
    p = logits.softmax(-1)
    return (1.7 * logits).softmax(-1), torch.multinomial(p, 1, generator=rng)[:, 0]


def score_by_hand(p: list[float], k: int, rule: str, u: float) -> float:
    if rule == "lac":
        return 1 - p[k]
    place = sorted(range(len(p)), key=lambda j: -p[j]).index(k)
    above = sum(sorted(p, reverse=True)[:place]) + u * p[k]
    return above + (0.001 * max(0, place + 1 - 1) if rule == "raps" else 0.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("random", [False, True])
def test_scores_are_those_of_loops(rule: str, random: bool) -> None:
    p, _ = drawn(9, 5, seed=3)
    u = torch.rand(9, generator=torch.Generator().manual_seed(1)).double() if random else None
    scores = class_scores(p, rule, u)
    for i in range(9):
        for k in range(5):
            share = 1.0 if u is None else float(u[i])
            expected = score_by_hand(p[i].tolist(), k, rule, share)
            assert float(scores[i, k]) == pytest.approx(expected, abs=1e-12)


@given(rows=st.integers(1, 3000), coverage=SHARES)
def test_the_rank_is_exact(rows: int, coverage: float) -> None:
    exact = Fraction(round(1000 * coverage), 1000)
    assert rank(rows, coverage) == math.ceil((rows + 1) * exact)


def test_the_rank_of_decimals_that_binary_numbers_miss() -> None:
    assert math.ceil(100 * 0.55) == 56  # what floating point says
    assert rank(99, 0.55) == 55


@given(coverage=SHARES)
def test_fewer_rows_than_needed_cannot_promise_a_coverage(coverage: float) -> None:
    needed = rows_needed(coverage)
    assert rank(needed, coverage) <= needed
    assert needed == 1 or rank(needed - 1, coverage) > needed - 1


@given(rows=st.integers(100, 5000))
def test_what_is_called_most_can_be_promised(rows: int) -> None:
    most = most_promised(rows)
    assert rows_needed(most) <= rows
    assert most == 0.99 or rows_needed(round(most + 0.01, 2)) > rows


@given(
    scores=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    asked=st.lists(st.integers(-1, 7), min_size=1, max_size=8),
    coverage=SHARES,
)
def test_counting_is_comparing_with_the_score_of_that_rank(
    scores: list[int], asked: list[int], coverage: float
) -> None:
    """With ties as well."""
    ordered = torch.tensor(sorted(scores)).double()
    r = rank(len(scores), coverage)
    q = math.inf if r > len(scores) else float(ordered[r - 1])
    inside = within(smaller(ordered, torch.tensor(asked).double()), len(scores), coverage)
    assert inside.tolist() == [s <= q for s in asked]


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    rows=st.sampled_from([19, 40, 99, 250]),
    coverage=st.sampled_from([0.8, 0.9, 0.95]),
    rule=st.sampled_from(RULES),
)
def test_coverage_of_exchangeable_rows_is_in_its_band(
    seed: int, rows: int, coverage: float, rule: str
) -> None:
    """The share of covered queries is beta-binomial, whatever the probabilities are."""
    queries, draws = 200, 40
    r = rank(rows, coverage)
    covered = []
    for draw in range(draws):
        p, labels = drawn(rows + queries, 6, seed=seed * draws + draw)
        u = torch.rand(len(p), generator=torch.Generator().manual_seed(draw)).double()
        score = class_scores(p, rule, u).gather(1, labels[:, None])[:, 0]
        inside = within(smaller(score[:rows].sort().values, score[rows:]), rows, coverage)
        covered.append(int(inside.sum()))
    band = stats.betabinom(queries, r, rows + 1 - r)
    error = band.std() / math.sqrt(draws)
    assert abs(np.mean(covered) - band.mean()) < 5 * error
    assert band.mean() / queries >= coverage
    outside = sum(n < band.ppf(0.0005) or n > band.ppf(0.9995) for n in covered)
    assert outside <= 3


def test_the_guarantee_of_folds() -> None:
    assert cross_guarantee(400, 400, 0.9) == pytest.approx(0.8)  # one row a fold: 1 - 2 alpha
    assert cross_guarantee(400, 4, 0.9) == pytest.approx(0.8 - 2 * 0.75 / 101)
    assert cross_guarantee(8, 2, 0.5) == 0


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), True, "0.9", None])
def test_no_share_is_refused(share: object) -> None:
    with pytest.raises(UsageError, match=r"coverage must be a number between 0 and 1, got"):
        check_share("coverage", share)
