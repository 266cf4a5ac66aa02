import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.contract.rows import Rows, TaskView, Tensors
from heads.methods import dmn
from heads.methods.dmn import Config, Hyper
from heads.ops import online_memory


def answered(
    task: TaskView, x: Tensor, config: Config | None = None, **values: float
) -> tuple[Tensors, Tensor]:
    """Return the terms, and the logits."""
    config, hyper = config or Config(), Hyper(**values)
    task = replace(task, support=replace(task.support, x=task.support.x.to(x)))
    params, fixed = dmn.prepare(task, config, hyper)
    terms = dmn.terms(params, fixed, Rows.of(x), config, hyper)
    return terms, dmn.combine(terms, fixed, config, hyper)


def naive(task: TaskView, x: Tensor, memory: int, *, first: bool) -> Tensor:
    """The memory as lists, row by row, in float64; weight 0.5."""
    assert task.text is not None
    t = task.text.anchors().double()
    held: list[list[Any]] = [[] for _ in t]
    out = []

    def answer(row: Tensor, y: Tensor) -> Tensor:
        dynamic = torch.zeros(len(t)).double()
        for k, text in enumerate(t):
            u = torch.zeros_like(text)
            for key in [text, *(key for _, key in held[k])]:
                u += math.exp(-5.5 * (1 - float(row @ key))) * key
            dynamic[k] = 20.0 * float(row @ u) / float(u.norm())
        return (y + 0.5 * torch.softmax(dynamic, dim=0)).log()

    for row in x:
        y = torch.softmax(20.0 * row @ t.T, dim=0)
        e, k = -float((y * (y + 1e-8).log()).sum()), int(y.argmax())
        if not first:
            out.append(answer(row, y))
        if len(held[k]) < memory:
            held[k].append((e, row))
        else:
            worst = max(range(memory), key=lambda j: held[k][j][0])
            if e < held[k][worst][0]:
                held[k][worst] = (e, row)
        if first:
            out.append(answer(row, y))
    return torch.stack(out)


@pytest.mark.parametrize("update", ["before", "after"])
def test_logits_equal_naive_loops(toy: Any, update: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, x = toy(n=40)
    expected = naive(task, x, 3, first=update == "before")
    for rows in (128, 7):
        monkeypatch.setattr(online_memory, "CHUNK_ROWS", rows)
        got = answered(task, x, Config(memory=3, update=update), weight=0.5)[1]
        torch.testing.assert_close(got, expected)


def test_without_weight_it_is_zero_shot(toy: Any) -> None:
    task, x = toy(n=20)
    expected = torch.log_softmax(20.0 * x @ task.text.anchors().double().T, dim=-1)
    torch.testing.assert_close(answered(task, x, weight=0.0)[1], expected)


def test_later_queries_change_no_earlier_answer(toy: Any) -> None:
    task, x = toy(n=40)
    whole = answered(task, x, Config(memory=2))[1]
    torch.testing.assert_close(answered(task, x[:25], Config(memory=2))[1], whole[:25])


def test_rows_that_are_no_queries_answer_as_the_nearest_query(toy: Any) -> None:
    task, x = toy(n=20)
    config, hyper = Config(), Hyper()
    params, fixed = dmn.prepare(task, config, hyper)
    rows = replace(Rows.of(x[[4, 0]]), among=Rows.of(x))
    got = dmn.combine(dmn.terms(params, fixed, rows, config, hyper), fixed, config, hyper)
    assert torch.equal(got, answered(task, x)[1][[4, 0]])


@pytest.mark.parametrize("name", ["caltech50", "imagenet256"])
def test_golden(name: str, features: Any, shared: Callable[[str], Path]) -> None:
    # YBZh/DMN in cfuchs2023/OGA@b91d449, memory 8; stored in float16
    task, x, _ = features(name, "train4" if name == "caltech50" else "train")
    file = np.load(shared(f"golden/dmn_{name}.npz"))
    terms, _ = answered(task, x[torch.from_numpy(file["order"])], Config(memory=8))
    expected = file["dynamic_logits"][file["order"]]
    spacing = np.spacing(np.abs(expected)).astype(np.float32)
    assert (np.abs(terms["dynamic"].numpy() - expected) <= 0.51 * spacing).all()
