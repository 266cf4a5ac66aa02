"""The memory against one that stores and replaces row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads.ops import online_memory


def stream(seed: int, n: int, c: int) -> tuple[Tensor, Tensor]:
    """Labels with some that are not offered, and entropies with equal ones."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(-1, c, (n,), generator=rng)
    return label, torch.randint(0, 12, (n,), generator=rng).double() / 4


def naive(label: Tensor, entropy: Tensor, c: int, capacity: int) -> list[list[set[int]]]:
    """Return the rows held of each class after each row: append, else replace the worst."""
    memory: list[list[int]] = [[] for _ in range(c)]
    seen = []
    for t, (k, e) in enumerate(zip(label.tolist(), entropy.tolist(), strict=True)):
        if k >= 0:
            if len(memory[k]) < capacity:
                memory[k].append(t)
            elif e < max(float(entropy[j]) for j in memory[k]):
                worst = max(memory[k], key=lambda j: (float(entropy[j]), j))
                memory[k][memory[k].index(worst)] = t
        seen.append([set(rows) for rows in memory])
    return seen


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), capacity=st.integers(1, 4), each=st.integers(1, 20))
def test_what_is_held_is_what_storing_row_by_row_leaves(
    seed: int, capacity: int, each: int
) -> None:
    n, c = 20, 3
    label, entropy = stream(seed, n, c)
    expected = naive(label, entropy, c, capacity)
    memory = online_memory.empty(c, capacity, entropy)
    for start in range(0, n, each):
        part = slice(start, min(start + each, n))
        for itself in (True, False):
            old, new = online_memory.held(memory, label[part], entropy[part], itself=itself)
            for t in range(part.stop - start):
                moment = start + t - (0 if itself else 1)
                rows = expected[moment] if moment >= 0 else [set() for _ in range(c)]
                for k in range(c):
                    kept = set(memory.place[k][old[t, k]].tolist())
                    fresh = {start + j for j in new[t].nonzero()[:, 0].tolist()}
                    assert kept | {j for j in fresh if int(label[j]) == k} == rows[k]
        memory = online_memory.arrive(memory, label[part], entropy[part], start)
        held = [set(memory.place[k][memory.is_held[k]].tolist()) for k in range(c)]
        assert held == expected[part.stop - 1]


def test_chunks_cover_all_rows_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = list(online_memory.chunks(300, 5, 3, 4))
    assert [p for part in parts for p in range(part.start, part.stop)] == list(range(300))
    monkeypatch.setattr(online_memory, "CHUNK_BYTES", 0)
    assert len(list(online_memory.chunks(7, 5, 3, 4))) == 7
