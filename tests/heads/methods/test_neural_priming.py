"""Neural Priming against loops, its limits, and classes without rows."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import zero_shot_logits
from heads.contract.rows import Rows, TaskView
from heads.contract.settings import WithText
from heads.methods import neural_priming

CONFIG = WithText()


def logits(task: TaskView, x: Tensor, **values: float) -> Tensor:
    hyper = neural_priming.Hyper(**values)
    params, fixed = neural_priming.prepare(task, CONFIG, hyper)
    terms = neural_priming.terms(params, fixed, Rows.of(x), CONFIG, hyper)
    return neural_priming.combine(terms, fixed, CONFIG, hyper)


def naive(x: Tensor, parts: list[Rows], anchors: Tensor, alpha: float) -> Tensor:
    """Equations (1) to (3) row by row, in float64; the toy's scale is 20, its bias -3."""
    out = torch.zeros(len(x), len(anchors), dtype=torch.float64)
    for c, text in enumerate(anchors):
        total = torch.zeros_like(text)
        for rows in parts:
            for row, label, weight in zip(rows.x, rows.y, rows.row_weights, strict=True):
                if int(label) == c:
                    total = total + float(weight) * row
        mean = text if float(total.norm()) == 0 else total / total.norm()
        classifier = alpha * text + (1 - alpha) * mean
        for i, q in enumerate(x):
            out[i, c] = 20.0 * float(q @ classifier) - 3.0
    return out


def primed(toy: Any, *, shots: bool) -> tuple[TaskView, Tensor]:
    """Return a task with a corpus that lacks class 2, and shots that lack it as well."""
    task, x = toy(bias=-3.0)
    other, _ = toy(seed=5, counts=(2, 3, 4, 1))
    kept = torch.nonzero(other.support.y != 2)[:, 0]
    weights = torch.linspace(0.3, 1.0, len(kept), dtype=torch.float64)
    corpus = replace(other.support.take(kept), weights=weights)
    some = torch.nonzero(task.support.y != 2)[:, 0] if shots else slice(0, 0)
    return replace(task, corpus=corpus, support=task.support.take(some)), x


def test_logits_equal_naive_loops(toy: Any) -> None:
    for shots in (False, True):
        task, x = primed(toy, shots=shots)
        assert task.corpus is not None
        assert task.text is not None
        parts = [task.corpus, task.support] if shots else [task.corpus]
        for alpha in (0.9, 0.4):
            expected = naive(x, parts, task.text.anchors().double(), alpha)
            torch.testing.assert_close(logits(task, x, alpha=alpha), expected)


def test_alpha_one_is_zero_shot_and_zero_the_class_means(toy: Any) -> None:
    task, x = primed(toy, shots=False)
    hyper = neural_priming.Hyper()
    _, fixed = neural_priming.prepare(task, CONFIG, hyper)
    torch.testing.assert_close(logits(task, x, alpha=1.0), zero_shot_logits(fixed, x))
    means = logits(task, x, alpha=0.0)
    assert task.corpus is not None
    first = F.normalize(
        (task.corpus.row_weights[:, None] * task.corpus.x)[task.corpus.y == 0].sum(0), dim=0
    )
    torch.testing.assert_close(means[:, 0], 20.0 * x @ first - 3.0)


def test_a_class_without_rows_keeps_its_text(toy: Any) -> None:
    task, x = primed(toy, shots=True)
    torch.testing.assert_close(logits(task, x, alpha=0.3)[:, 2], logits(task, x, alpha=1.0)[:, 2])
