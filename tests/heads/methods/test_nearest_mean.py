from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from heads.contract.rows import Rows, TaskView
from heads.contract.settings import Nothing
from heads.methods import nearest_mean
from heads.methods.nearest_mean import Config


def logits(task: TaskView, x: Tensor, config: Config | None = None) -> Tensor:
    config = config or Config()
    params, fixed = nearest_mean.prepare(task, config, Nothing())
    terms = nearest_mean.terms(params, fixed, Rows.of(x), config, Nothing())
    return nearest_mean.METHOD.combine(terms, fixed, config, Nothing())


def means(task: TaskView) -> list[Tensor]:
    """Average class by class in loops."""
    assert task.support.labels is not None
    labels, found = task.support.labels.tolist(), []
    for c in range(task.c):
        own = [x for x, y in zip(task.support.x, labels, strict=True) if y == c]
        found.append(sum(own[1:], own[0]) / len(own))
    return found


def test_cosines_equal_loops(toy: Any) -> None:
    task, x = toy(text=False)
    expected = [[float(q @ m / m.norm()) for m in means(task)] for q in x]
    assert torch.allclose(logits(task, x), torch.tensor(expected).double(), atol=1e-12)


def test_distances_equal_loops(toy: Any) -> None:
    task, x = toy(text=False)
    expected = [[-float((q - m).square().sum()) for m in means(task)] for q in x]
    got = logits(task, x, Config(distance="euclidean"))
    assert torch.allclose(got, torch.tensor(expected).double(), atol=1e-12)


def test_answers_are_scikit_learns(toy: Any) -> None:
    task, x = toy(1, n=50, text=False)
    theirs = NearestCentroid().fit(task.support.x.numpy(), task.support.labels.numpy())
    got = logits(task, x, Config(distance="euclidean")).argmax(-1).numpy()
    assert (got == theirs.predict(x.numpy())).all()


def test_one_shot_finds_the_nearest_shot(toy: Any) -> None:
    task, x = toy(counts=(1, 1, 1, 1), text=False)
    nearest = (x @ task.support.x.mT).argmax(-1)
    for config in (Config(), Config(distance="euclidean")):
        assert torch.equal(logits(task, x, config).argmax(-1), task.support.labels[nearest])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_class_without_a_shot_never_wins(toy: Any, distance: Any) -> None:
    task, x = toy(n=30, text=False)
    more = replace(task, classes=(*task.classes, "absent"))
    got = logits(more, torch.cat([x, -task.support.x]), Config(distance=distance))
    assert bool((got[:, -1] < got[:, :-1].amin(-1)).all())
