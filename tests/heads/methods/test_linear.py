"""Which heads are one matrix and one vector: found by regression, and folded without a change."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import UsageError
from heads import registry
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows
from heads.fitted import Fitted
from heads.selection.settings import configure
from heads.training.trainer import train
from tests.heads.toy_tasks import make_task, rich_world, short, variants
from tests.tiers import quick

FEATURES = rich_world()
D = 16
ROWS = 64
"""Random rows, more than an affine map of 16 channels could fit by chance."""
CLOSE = 1e-4
"""Largest error beside the largest logit, of float32."""


def answers_by_global_features(method: AnyMethod, config: Any) -> bool:
    kinds = {need.kind for need in method.needs(config) if need.role == "query"}
    return kinds == {"global"} and not method.transductive


def cases() -> list[tuple[str, Any]]:
    found = []
    for name in registry.names():
        method = registry.get(name)
        default = configure(method, short(method)).config
        every = [default, *variants(method, FEATURES, together=False)]
        found += [(name, c) for c in dict.fromkeys(every) if answers_by_global_features(method, c)]
    return found


def head_of(name: str, config: Any) -> Fitted:
    method = registry.get(name)
    view = make_task(FEATURES, method, config).view
    brief = {k: v for k, v in short(method).items() if k != "classes"}
    config = type(config)(**{**vars_of(config), **brief})
    try:
        (run,) = train(method, config, [view], [configure(method, {}).hyper])
    except UsageError as refused:  # a choice that needs another one
        pytest.skip(str(refused))
    assert run.failed is None
    return run.head


def vars_of(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def rows(seed: int) -> Tensor:
    """Return unit rows, half of them near training images, where kernels are not flat."""
    rng = torch.Generator().manual_seed(seed)
    near = FEATURES.unit("global", FEATURES.usable("train")[: ROWS // 2])
    near = near + 0.1 * torch.randn(near.shape, generator=rng)
    far = torch.randn(ROWS - len(near), D, generator=rng)
    return F.normalize(torch.cat([near, far]), dim=-1)


def misfit(fitted: Fitted) -> float:
    """Return the error of the best affine map through the logits, beside the largest logit."""
    x = rows(1)
    logits = fitted.logits(Rows.of(x)).double()
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    solved = torch.linalg.lstsq(design, logits, driver="gelsd").solution
    return float((design @ solved - logits).abs().max() / logits.abs().max())


@pytest.mark.parametrize(("name", "config"), quick(cases(), 24))
def test_a_method_declares_its_matrix_exactly_where_logits_are_affine(
    name: str, config: Any
) -> None:
    fitted = head_of(name, config)
    folded = fitted.linear()
    assert (folded is not None) == (misfit(fitted) < CLOSE), name
    if folded is None:
        return
    x = rows(2)
    logits = fitted.logits(Rows.of(x))
    error = (x @ folded.weight.mT + folded.bias - logits).abs().max() / logits.abs().max()
    assert error < CLOSE
    assert folded.weight.dtype == logits.dtype


def test_affine_and_other_methods_are_both_among_the_cases() -> None:
    names = {name for name, _ in cases()}
    assert {"ridge", "gda", "timo-s", "neural-priming", "fair", "lazsl"} <= names
    assert {"tip-adapter", "cmm", "lfa", "sus-x", "ensemble", "knn"} <= names
