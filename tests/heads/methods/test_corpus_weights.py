"""A row that weighs two is the row twice, in methods that read weights of corpus rows."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from heads import registry
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView
from heads.fitted import Fitted

WEIGHING = [name for name in registry.names() if registry.get(name).weighs_corpus]
WEIGHING.remove("sus-x")  # two equal rows change its ranges; its naive loops have weights


def head(method: AnyMethod, view: TaskView) -> Fitted:
    config, hyper = method.config(), method.hyper()
    params, fixed = method.prepare(view, config, hyper)
    return Fitted(method=method, config=config, hyper=hyper, params=params, fixed=fixed)


@pytest.mark.parametrize("name", WEIGHING)
def test_weight_two_is_the_row_twice(name: str, toy: Any) -> None:
    method = registry.get(name)
    task, x = toy()
    n = len(task.support)
    weights = torch.ones(n, dtype=torch.float64)
    weights[[1, 4]] = 2.0
    twice = torch.cat([torch.arange(n), torch.tensor([1, 4])])
    weighted = replace(task.support, weights=weights)
    role = "corpus" if any(n.role == "corpus" for n in method.needs(method.config())) else "support"
    one, other = (
        head(method, replace(task, **{role: rows})).logits(Rows.of(x))
        for rows in (weighted, task.support.take(twice))
    )
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    plain = head(method, replace(task, **{role: task.support})).logits(Rows.of(x))
    assert float((plain - one).abs().max()) > 1e-4


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_the_search_of_proker_reads_weights(variant: str, toy: Any) -> None:
    method = registry.get("proker")
    task, x = toy()
    weights = torch.linspace(0.1, 2.0, len(task.support), dtype=torch.float64)
    view = replace(task, support=replace(task.support, weights=weights))
    config, hyper = method.config(variant=variant), method.hyper()
    assert method.scout is not None
    (scouted,) = method.scout(view, config)([hyper], x)
    params, fixed = method.prepare(view, config, hyper)
    exact = Fitted(method=method, config=config, hyper=hyper, params=params, fixed=fixed)
    torch.testing.assert_close(scouted, exact.logits(Rows.of(x)), rtol=1e-4, atol=1e-4)
