"""The estimator: parameters untouched, fitted names with an underscore, the same head."""

from collections.abc import Callable

import pytest
import torch

from featcache.errors import UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads import registry
from heads.episode import Episode
from heads.estimator import Estimator
from heads.protocols.builder import EpisodeBuilder


@pytest.fixture
def task(world: Callable[..., FeatureSet]) -> Episode:
    features = world()
    method = registry.get("tip-adapter")
    made = EpisodeBuilder(
        features=features,
        needs=method.needs(method.config()),
        device=torch.device("cpu"),
        splits={"test": features.usable("test")},
    )
    return made.build(features.usable("train"), features.usable("val"), seed=1, shots=12)


def test_parameters_are_stored_untouched() -> None:
    values = [1, 2]
    estimator = Estimator("tip-adapter", alpha=values, beta="5")
    assert estimator.get_params() == {
        "method": "tip-adapter",
        "selection": None,
        "seed": 1,
        "alpha": [1, 2],
        "beta": "5",
    }
    assert estimator.get_params()["alpha"] is values
    assert estimator.set_params(alpha=3, selection="none") is estimator
    assert repr(estimator) == "Estimator('tip-adapter', selection='none', alpha=3, beta='5')"
    assert not [n for n in vars(estimator) if n.endswith("_")]
    Estimator("nonsense", nothing=1)  # checked by fit


def test_fit_predict_score(task: Episode) -> None:
    estimator = Estimator("tip-adapter", beta=5.5, alpha=[0.0, 1.0]).fit(task)
    assert estimator.hyper_.beta == 5.5
    assert estimator.validation_accuracy_ is not None
    answered = estimator.predict(task.query)
    assert task.query.labels is not None
    assert estimator.score(task.query) == pytest.approx(
        float((answered == task.query.labels).float().mean())
    )
    scaled = estimator.predict(task.query.x * 7)
    assert torch.equal(scaled, answered)
    assert estimator.decision_function(task.query).shape == (50, 5)
    assert estimator.classes_ == task.view.classes
    assert torch.equal(
        estimator.predict_proba(task.query), torch.softmax(estimator.head_.logits(task.query), -1)
    )
    with pytest.raises(UsageError, match="has its own labels"):
        estimator.fit(task, [1, 2])


def test_errors(task: Episode) -> None:
    with pytest.raises(UsageError, match="not fitted yet"):
        Estimator("tip-adapter").predict(task.query)
    with pytest.raises(UnknownNameError, match="Unknown method"):
        Estimator("nonsense").fit(task)
    with pytest.raises(UnknownNameError, match="setting of tip-adapter"):
        Estimator("tip-adapter", gamma=1).fit(task)
    with pytest.raises(UnknownNameError, match="selection 'full'"):
        Estimator("tip-adapter", selection="full").fit(task)


def test_rows_that_are_not_finite_are_named(task: Episode) -> None:
    estimator = Estimator("tip-adapter", beta=5.5, alpha=1.0).fit(task)
    rows = task.query.x.clone()
    rows[3, 0], rows[7, 2] = float("nan"), float("inf")
    for call in (estimator.predict, estimator.decision_function):
        with pytest.raises(UsageError, match=r"^2 of 50 rows hold NaN .*\(rows 3, 7\)"):
            call(rows)
