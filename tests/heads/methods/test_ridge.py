from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifier
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import Rows, TaskView
from heads.contract.settings import Nothing
from heads.methods import ridge

CONFIG = Nothing()


def logits(task: TaskView, x: Tensor, lam: float) -> Tensor:
    hyper = ridge.Hyper(lam=lam)
    params, fixed = ridge.prepare(task, CONFIG, hyper)
    terms = ridge.terms(params, fixed, Rows.of(x), CONFIG, hyper)
    return ridge.combine(terms, fixed, CONFIG, hyper)


def one_hot(task: TaskView) -> Tensor:
    assert task.support.labels is not None
    return F.one_hot(task.support.labels, task.c).double()


@pytest.mark.parametrize("lam", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("counts", [(3, 1, 2), (9, 4, 12)])
def test_equals_scikit_learn(toy: Any, lam: float, counts: tuple[int, ...]) -> None:
    task, x = toy(counts=counts, d=8, text=False)
    n = sum(counts)
    weights = torch.rand(n, generator=torch.Generator().manual_seed(0)).double() + 0.5
    for given in (None, weights):
        theirs = Ridge(alpha=lam, solver="cholesky")
        theirs.fit(task.support.x.numpy(), one_hot(task).numpy(), sample_weight=given)
        got = logits(replace(task, support=replace(task.support, weights=given)), x, lam)
        assert np.abs(got.numpy() - theirs.predict(x.numpy())).max() < 1e-10


def test_answers_are_those_of_ridge_classifier(toy: Any) -> None:
    task, x = toy(counts=(5, 7, 3, 6), n=40, text=False)
    theirs = RidgeClassifier(alpha=0.5).fit(task.support.x.numpy(), task.support.labels.numpy())
    got = logits(task, x, 0.5).argmax(-1).numpy()
    assert (got == theirs.predict(x.numpy())).all()


@pytest.mark.parametrize("name", ["caltech50", "imagenet256"])
def test_float32_solves_to_a_millionth(name: str, features: Any) -> None:
    task, x, _ = features(name, "train4" if name == "caltech50" else "train")
    rows, y = task.support.x.double(), one_hot(task)
    centred, target = rows - rows.mean(0), y - y.mean(0)
    for lam in (1e-3, 0.1, 10.0):
        eye = lam * torch.eye(rows.shape[1]).double()
        weight = torch.linalg.solve(centred.mT @ centred + eye, centred.mT @ target)
        expected = (x.double() - rows.mean(0)) @ weight + y.mean(0)
        got = logits(task, x, lam).double()
        assert float((got - expected).norm() / expected.norm()) < 1e-6


def test_a_strong_penalty_leaves_the_class_frequencies(toy: Any) -> None:
    task, x = toy(counts=(3, 1, 4, 2), text=False)
    got = logits(task, x, 1e9)
    assert torch.allclose(got, torch.tensor([0.3, 0.1, 0.4, 0.2]).double().expand_as(got))


def test_no_penalty_interpolates_the_shots(toy: Any) -> None:
    task, _ = toy(counts=(2, 1, 2), d=9, text=False)
    assert torch.allclose(logits(task, task.support.x, 1e-9), one_hot(task), atol=1e-6)
