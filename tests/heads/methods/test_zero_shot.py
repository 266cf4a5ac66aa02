from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import MissingComponentError
from heads.core.contract import TaskView
from heads.methods import zero_shot


def logits(task: TaskView, x: torch.Tensor, **settings: Any) -> torch.Tensor:
    config, hyper = zero_shot.Config(**settings), zero_shot.Hyper()
    params, fixed = zero_shot.prepare(task, config, hyper)
    terms = zero_shot.terms(params, fixed, {"x": x}, config, hyper)
    return zero_shot.combine(terms, fixed, config, hyper)


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy(bias=-3.0)
    got = logits(task, x)
    rows = task.text.template_rows.double()
    for i in range(len(x)):
        for c in range(task.c):
            mean = sum(rows[c, t] / rows[c, t].norm() for t in range(2)) / 2
            expected = 20.0 * float(x[i] @ (mean / mean.norm())) - 3.0
            # anchors are kept in float32
            assert float(got[i, c]) == pytest.approx(expected, abs=1e-5)


def test_each_kind_of_text_is_its_own_classifier(toy: Any) -> None:
    task, x = toy()
    assert torch.equal(logits(task, x), logits(task, x, text="template"))
    by_name = logits(task, x, text="name")
    assert not torch.allclose(by_name, logits(task, x), atol=0.1)
    with pytest.raises(MissingComponentError, match="'description'"):
        logits(task, x, text="description")


def test_no_texts_is_said(toy: Any) -> None:
    task, x = toy(text=False)
    with pytest.raises(MissingComponentError, match=r"zero-shot.*needs class texts"):
        logits(task, x)


def test_shots_are_not_read(toy: Any) -> None:
    task, x = toy()
    task.support.x.zero_()
    assert torch.isfinite(logits(task, x)).all()


@pytest.mark.parametrize(("name", "support"), [("caltech50", "train1"), ("imagenet256", "train")])
def test_golden(name: str, support: str, features: Any, shared: Callable[[str], Path]) -> None:
    task, x, _ = features(name, support)
    golden = np.load(shared(f"golden/zeroshot_{name}.npz"))["logits"]
    assert np.abs(logits(task, x).numpy() - golden).max() < 1e-4
