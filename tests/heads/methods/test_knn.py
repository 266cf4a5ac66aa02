import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from featcache.errors import UsageError
from heads.contract.rows import Rows, TaskView
from heads.methods import knn
from heads.methods.knn import Config, Hyper
from heads.selection.settings import configure


def logits(task: TaskView, x: Tensor, config: Config | None = None, **values: float) -> Tensor:
    config, hyper = config or Config(), Hyper(**{n: float(v) for n, v in values.items()})
    params, fixed = knn.prepare(task, config, hyper)
    terms = knn.terms(params, fixed, Rows.of(x), config, hyper)
    return knn.combine(terms, fixed, config, hyper)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (3, 0.07), (5, 0.5), (50, 0.2)])
def test_votes_equal_loops(toy: Any, k: int, temperature: float) -> None:
    task, x = toy(text=False)
    labels = task.support.labels.tolist()
    expected = []
    for q in x:
        order = sorted(range(len(labels)), key=lambda i: -float(q @ task.support.x[i]))
        first = float(q @ task.support.x[order[0]])
        votes: dict[int, float] = defaultdict(float)
        for i in order[:k]:
            votes[labels[i]] += math.exp((float(q @ task.support.x[i]) - first) / temperature)
        expected.append([votes[c] for c in range(task.c)])
    got = logits(task, x, k=k, T=temperature)
    assert torch.allclose(got, torch.tensor(expected).double(), atol=1e-12)


def test_answers_are_scikit_learns(toy: Any) -> None:
    """Its distance is Euclidean: of unit rows 2 - 2 x . x_i."""
    task, x = toy(2, counts=(8, 6, 9), n=60, text=False)

    theirs = KNeighborsClassifier(7, weights=lambda d: np.exp(-(d**2) / 0.2))
    theirs.fit(task.support.x.numpy(), task.support.labels.numpy())
    got = logits(task, x, k=7, T=0.1).argmax(-1).numpy()
    assert (got == theirs.predict(x.numpy())).all()


def test_faiss_gives_the_same_votes(toy: Any) -> None:
    pytest.importorskip("faiss")
    task, x = toy(counts=(8, 6, 9), text=False)
    exact, theirs = (logits(task, x, Config(index=i), k=4) for i in ("exact", "faiss"))
    assert torch.allclose(exact, theirs, rtol=1e-4)


def test_a_small_temperature_trusts_the_nearest(toy: Any) -> None:
    task, x = toy(text=False)
    nearest = task.support.labels[(x @ task.support.x.mT).argmax(-1)]
    assert torch.equal(logits(task, x, k=10, T=1e-3).argmax(-1), nearest)


def test_a_large_temperature_counts(toy: Any) -> None:
    task, x = toy(counts=(3, 1, 4, 2), text=False)
    got = logits(task, x, k=10, T=1e6)
    assert torch.allclose(got, torch.tensor([3.0, 1, 4, 2]).double().expand_as(got), atol=1e-4)


@pytest.mark.parametrize(
    ("k", "words"), [("300", "at most 200"), ("1,300", "at most 200"), ("2.5", "whole")]
)
def test_a_k_that_cannot_be_is_refused(k: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        configure(knn.METHOD, {"k": k})


def test_the_smallest_temperature_asks_the_nearest(toy: Any) -> None:
    task, x = toy(text=False)
    sharp, one = logits(task, x, k=10, T=1e-6), logits(task, x, k=1)
    assert torch.equal(sharp.argmax(-1), one.argmax(-1))
    assert bool((sharp.max(-1).values >= 1).all())
