"""Small tasks in float64, and the real features where they are at hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.types import TextBank
from heads.contract.rows import Batch, Kind, Rows, TaskView
from heads.contract.settings import Grid
from heads.fitted import Fitted
from heads.selection import scoring


@pytest.fixture(scope="session")
def features(shared: Callable[[str], Path]) -> Callable[..., tuple[TaskView, Tensor, Tensor]]:
    """Return a loader of (task, test rows, test labels) from a features file."""

    def load(name: str, support: str) -> tuple[TaskView, Tensor, Tensor]:
        with np.load(shared(f"features/{name}_vitb32.npz")) as file:
            data = {k: file[k] for k in file.files if not k.endswith("paths")}

        def rows(key: str) -> Tensor:
            return F.normalize(torch.from_numpy(data[key]).float(), dim=-1)

        x = rows(f"{support}_features")
        classes = tuple(data["classnames"].tolist())
        bank: Any = TextBank(
            classes=classes,
            names=rows("text_features"),
            templates=(),
            template_rows=None,
            norms="unit",
            default="name",
        )
        labels = torch.from_numpy(data[f"{support}_labels"]).long()
        support_rows = Rows(x=x, norms=torch.ones(len(x)), labels=labels)
        task = TaskView(support=support_rows, pool=None, text=bank, classes=classes, seed=1)
        return task, rows("test_features"), torch.from_numpy(data["test_labels"]).long()

    return load


@pytest.fixture(scope="session")
def toy() -> Callable[..., tuple[TaskView, Tensor]]:
    """Return a factory of (task, query rows): float64, classes of unequal size, shuffled."""

    def make(
        seed: int = 0,
        *,
        counts: tuple[int, ...] = (3, 1, 4, 2),
        d: int = 6,
        n: int = 7,
        views: int = 0,
        bias: float = 0.0,
        text: bool = True,
    ) -> tuple[TaskView, Tensor]:
        rng = torch.Generator().manual_seed(seed)

        def unit(*shape: int) -> Tensor:
            return F.normalize(torch.randn(*shape, generator=rng, dtype=torch.float64), dim=-1)

        c = len(counts)
        labels = torch.arange(c).repeat_interleave(torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=rng)]
        x = unit(len(labels), d)
        extra = {Kind("views", "rrc50"): unit(len(labels), views, d)} if views else {}
        names = tuple(f"c{i}" for i in range(c))
        bank: Any = TextBank(
            classes=names,
            names=unit(c, d).float() * 7,
            templates=("a {}.", "the {}."),
            template_rows=unit(c, 2, d).float() * 9,
            logit_scale=20.0,
            logit_bias=bias,
        )
        rows = Rows(x=x, norms=torch.ones(len(x)).double(), labels=labels, kinds=extra)
        view = TaskView(
            support=rows, pool=None, text=bank if text else None, classes=names, seed=seed
        )
        return view, unit(n, d)

    return make


@pytest.fixture(scope="session")
def whole_batch() -> Callable[..., Batch]:
    """Return a factory of one batch that holds the whole support, the last row as padding."""

    def make(task: TaskView, *, padding: bool = True) -> Batch:
        x, y = task.support.x, task.support.labels
        assert y is not None
        n = len(x)
        weight = torch.ones(n, dtype=x.dtype)
        weight[-1] = 0.0 if padding else 1.0
        zero = torch.tensor(0)
        fields: dict[str, Any] = {"index": torch.arange(n), "view": torch.full((n,), -1)}
        fields["norms"] = task.support.norms
        return Batch(**fields, labels=y, weights=weight, x=x, step=zero, epoch=zero)

    return make


@pytest.fixture(scope="session")
def with_lengths() -> Callable[[TaskView], TaskView]:
    """Return a function that gives the raw features behind a toy's views different lengths."""

    def give(task: TaskView) -> TaskView:
        rng = torch.Generator().manual_seed(9)
        lengths = {
            kind: 5 + 10 * torch.rand(views.shape[:2], generator=rng).to(task.support.x)
            for kind, views in task.support.kinds.items()
        }
        return replace(task, support=replace(task.support, lengths=lengths))

    return give


@pytest.fixture(scope="session")
def released_search(shared: Callable[[str], Path], features: Any) -> Callable[..., float]:
    """Return a search as the released codes make it: the first of the best points on validation.

    It gives top-1 on test, in %, rounded to two places. `order` names the axes from the outermost
    of the released loops.
    """

    def search(
        method: Any, name: str, support: str, grid: Grid, *order: str, **values: Any
    ) -> float:
        task, x, y = features(name, support)
        with np.load(shared(f"features/{name}_vitb32.npz")) as file:
            rows, labels = file["val_features"], torch.from_numpy(file["val_labels"]).long()
        unit = F.normalize(torch.from_numpy(rows).float(), dim=-1)
        val = Rows(x=unit, norms=torch.ones(len(unit)), labels=labels)
        test = Rows(x=x, norms=torch.ones(len(x)), labels=y)
        config, hyper = method.config(), method.hyper(**values)
        params, fixed = method.prepare(task, config, hyper)
        head = Fitted(method=method, config=config, hyper=hyper, params=params, fixed=fixed)
        axes = list(grid.axes)
        hits = scoring.correct_on_grid(head, val, grid).numpy()
        hits = hits.reshape([len(v) for v in grid.axes.values()])
        hits = hits.transpose([axes.index(n) for n in order])
        place = np.unravel_index(int(hits.argmax()), hits.shape)
        best = {n: float(grid.axes[n][int(i)]) for n, i in zip(order, place, strict=True)}
        return round(100 * head.at(best).accuracy(test), 2)

    return search
