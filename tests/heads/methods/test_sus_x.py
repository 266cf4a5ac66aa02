"""TIP-X against loops, against Tip-Adapter, and against the votes of the released code."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import MissingComponentError
from heads.contract.rows import Rows, TaskView
from heads.contract.settings import WithText
from heads.methods import sus_x, tip_adapter

CONFIG = WithText()


def on_corpus(task: TaskView, **fields: Any) -> TaskView:
    """Return the task with its support as a corpus, and no support."""
    corpus = replace(task.support, **fields)
    return replace(task, corpus=corpus, support=task.support.take(slice(0, 0)))


def logits(task: TaskView, x: Tensor, **values: float) -> Tensor:
    hyper = sus_x.Hyper(**values)
    params, fixed = sus_x.prepare(task, CONFIG, hyper)
    terms = sus_x.terms(params, fixed, Rows.of(x), CONFIG, hyper)
    return sus_x.combine(terms, fixed, CONFIG, hyper)


def signature(row: Tensor, anchors: Tensor, temperature: float) -> list[float]:
    weights = [math.exp(float(row @ t) / temperature) for t in anchors]
    return [w / sum(weights) for w in weights]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def naive(x: Tensor, corpus: Rows, anchors: Tensor, hyper: sus_x.Hyper) -> Tensor:
    """Equations (1) to (3) one scalar at a time, in float64; the toy's scale is 20."""
    keys, labels, weights = corpus.x, corpus.y.tolist(), corpus.row_weights.tolist()
    told = [signature(key, anchors, hyper.temperature) for key in keys]
    pairs = [(i, j) for i in range(len(keys)) for j in range(len(keys)) if i != j]
    nats = [divergence(told[i], told[j]) for i, j in pairs]
    cosines = [float(keys[i] @ keys[j]) for i, j in pairs]
    low, high, spread = min(nats), max(nats), max(cosines) - min(cosines)
    out = [[20.0 * float(q @ t) for t in anchors] for q in x]
    for row, q in zip(out, x, strict=True):
        asked = signature(q, anchors, hyper.temperature)
        for key, other, label, weight in zip(keys, told, labels, weights, strict=True):
            near = math.exp(-hyper.beta * (1 - float(q @ key)))
            phi = spread * (high - divergence(asked, other)) / (high - low)
            row[label] += weight * (hyper.alpha * near + hyper.gamma * phi)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("weighted", [False, True])
def test_logits_equal_naive_loops(weighted: bool, toy: Any) -> None:
    task, x = toy()
    n = len(task.support)
    weights = torch.linspace(0.2, 1.5, n, dtype=torch.float64) if weighted else None
    view = on_corpus(task, weights=weights)
    assert view.corpus is not None
    for values in ({}, {"alpha": 3.0, "beta": 12.0, "gamma": 0.5, "temperature": 0.1}):
        expected = naive(x, view.corpus, task.text.anchors().double(), sus_x.Hyper(**values))
        torch.testing.assert_close(logits(view, x, **values), expected, rtol=1e-9, atol=1e-9)


def test_without_signatures_it_is_tip_adapter_on_the_corpus(toy: Any) -> None:
    task, x = toy()
    hyper, config = tip_adapter.Hyper(alpha=2.0, beta=3.0), tip_adapter.Config()
    params, fixed = tip_adapter.prepare(task, config, hyper)
    terms = tip_adapter.terms(params, fixed, Rows.of(x), config, hyper)
    expected = tip_adapter.combine(terms, fixed, config, hyper)
    found = logits(on_corpus(task), x, alpha=2.0, beta=3.0, gamma=0.0)
    torch.testing.assert_close(found, expected)


def test_classes_of_equal_size_get_the_released_votes(toy: Any) -> None:
    """The released votes are the negative rescaled divergences: the same but for a constant."""
    task, x = toy(counts=(3, 3, 3, 3))
    view, anchors = on_corpus(task), task.text.anchors().double()
    hyper = sus_x.Hyper()
    params, fixed = sus_x.prepare(view, CONFIG, hyper)
    ours = sus_x.terms(params, fixed, Rows.of(x), CONFIG, hyper)["signature"]
    told = [signature(key, anchors, 0.5) for key in task.support.x]
    n = len(told)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    nats = [divergence(told[i], told[j]) for i, j in pairs]
    cosines = [float(task.support.x[i] @ task.support.x[j]) for i, j in pairs]
    theirs = torch.zeros_like(ours)
    for i, q in enumerate(x):
        asked = signature(q, anchors, 0.5)
        for other, label in zip(told, task.support.y.tolist(), strict=True):
            share = (divergence(asked, other) - min(nats)) / (max(nats) - min(nats))
            theirs[i, label] -= share * (max(cosines) - min(cosines)) + min(cosines)
    apart = ours - theirs
    torch.testing.assert_close(apart, apart[:1, :1].expand_as(apart), rtol=1e-9, atol=1e-9)


def test_a_corpus_of_one_row_over_and_over_has_finite_answers(toy: Any) -> None:
    task, x = toy()
    same = task.support.x[:1].expand_as(task.support.x)
    assert bool(torch.isfinite(logits(on_corpus(task, x=same), x)).all())


def test_texts_are_needed(toy: Any) -> None:
    task, x = toy(text=False)
    with pytest.raises(MissingComponentError, match="'sus-x' needs class texts"):
        logits(on_corpus(task), x)
