"""Toy methods that exercise the contract: one stage, and two stages with a search between."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.contract.method import AnyMethod, Method, Need
from heads.contract.rows import Batch, Rows, TaskView, Tensors
from heads.contract.settings import Grid, number
from heads.contract.stages import Sizes, Stage
from heads.training.optim import adamw, sgd
from heads.training.samplers import full, shuffled


@dataclass(frozen=True, kw_only=True)
class Config:
    epochs: int = number(5, low=0)
    batch: int = number(16, low=1)
    keep: str = "last"
    look: int = 0
    patience: int = 0


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(0.05, above=0)
    alpha: float = number(1.0, low=0)
    shift: float = number(0.0, prepare=True)
    """Read by `prepare`: the texts start that far off."""


def needs(config: Config) -> frozenset[Need]:
    return frozenset(
        {
            Need(role="query"),
            Need(role="support"),
            Need(role="support", kind="views", recipe="rrc50", optional=True),
        }
    )


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    assert task.text is not None
    anchors = task.text.anchors().to(task.support.x)
    weight = torch.zeros_like(anchors) + hyper.shift
    return {"weight": weight, "bias": weight.new_zeros(task.c)}, {"anchors": anchors}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    learned = 10 * (rows.x @ params["weight"].mT + params["bias"])
    return {"zero_shot": 10 * rows.x @ fixed["anchors"].mT, "learned": learned}


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensor:
    return terms["zero_shot"] + hyper.alpha * terms["learned"]


def loss(
    params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> tuple[Tensor, Tensors]:
    logits = combine(terms(params, fixed, Rows.of(batch.x), config, hyper), fixed, config, hyper)
    own = torch.gather(F.log_softmax(logits, -1), -1, batch.y[:, None])[:, 0]
    return -(batch.weights * own).sum() / batch.weights.sum(), state


def loss_from_own_keys(
    params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> tuple[Tensor, Tensors]:
    value, _ = loss(params, {"anchors": fixed["keys"]}, state, batch, config, hyper)
    level = 0.5 * state["level"] + 0.5 * hyper.alpha
    return value + 0 * level, {"level": level}


def steps(sizes: Sizes, config: Config) -> int:
    return config.epochs * sizes.per_epoch


def one_stage(config: Config) -> tuple[Stage, ...]:
    return (
        Stage(
            trains=frozenset({"weight", "bias"}),
            loss=loss,
            batches=shuffled(config.batch),
            steps=steps,
            update=adamw(),
            keep="best-val" if config.keep == "best-val" else "last",
            look=config.look,
            patience=config.patience,
        ),
    )


def two_stages(config: Config) -> tuple[Stage, ...]:
    """Train the weight, freeze a key made of it, search alpha, then train the bias."""
    first = Stage(
        trains=frozenset({"weight"}),
        loss=loss,
        batches=shuffled(config.batch),
        steps=steps,
        update=adamw(),
        leave=lambda params, fixed, config, hyper: {
            **fixed,
            "keys": fixed["anchors"] + params["weight"],
        },
        search=True,
    )
    second = Stage(
        trains=frozenset({"bias"}),
        loss=loss_from_own_keys,
        batches=full(),
        steps=lambda sizes, config: 4,
        update=sgd(momentum=0.9),
        start=lambda params, fixed, config, hyper: {"level": 0 * hyper.alpha},
        watch=("level",),
    )
    return (first, second)


def _method(name: str, stages: Any = one_stage, **changes: Any) -> AnyMethod:
    parts: dict[str, Any] = {
        "name": name,
        "summary": "A toy.",
        "source": "ours",
        "config": Config,
        "hyper": Hyper,
        "train_grid": Grid({"lr": [0.01, 0.05, 0.2]}),
        "post_grid": Grid({"alpha": [0.0, 0.5, 1.0, 2.0]}),
        "needs": needs,
        "stages": stages,
        "prepare": prepare,
        "terms": terms,
        "combine": combine,
    }
    return Method(**{**parts, **changes})


@pytest.fixture
def toy() -> AnyMethod:
    """Return a softmax-linear method of one stage."""
    return _method("toy", one_stage)


@pytest.fixture
def toy_two() -> AnyMethod:
    """Return a method of two stages with a search between them."""
    return _method("toy-two", two_stages)


@pytest.fixture
def make_toy() -> Any:
    """Return the factory of toy methods, to change a part."""
    return _method


@pytest.fixture
def make_view() -> Any:
    """Return a factory of task views with random unit rows, in any float type."""

    def make(
        n: int = 20, d: int = 8, c: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> TaskView:
        rng = torch.Generator().manual_seed(seed)
        x = F.normalize(torch.randn(n, d, generator=rng, dtype=dtype), dim=-1)
        anchors = F.normalize(torch.randn(c, d, generator=rng, dtype=dtype), dim=-1)
        rows = Rows(x=x, norms=torch.ones(n, dtype=dtype), labels=torch.arange(n) % c)
        text = SimpleNamespace(
            anchors=lambda text=None: anchors,
            classifier=lambda text=None: anchors,
            raw_anchors=lambda text=None: anchors,
            texts=lambda text=None: (anchors, torch.arange(c)),
            logit_scale=10.0,
            logit_bias=0.0,
            norms="unit",
        )
        return TaskView(
            support=rows,
            pool=None,
            text=cast(Any, text),
            classes=tuple(f"c{i}" for i in range(c)),
            seed=seed,
        )

    return make
