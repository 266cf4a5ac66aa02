"""The estimator: parameters untouched, fitted names with an underscore, the same head."""

from collections.abc import Callable

import pytest
import torch

from featcache.errors import TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads import registry
from heads.contract.rows import Rows
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
        "calibrate_on": "auto",
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
    with pytest.raises(UsageError, match="has its own labels"):
        estimator.fit(task, [1, 2])


def loss(probabilities: torch.Tensor, rows: Rows) -> float:
    return float(-probabilities.gather(1, rows.y[:, None]).log().mean())


def test_validation_rows_of_an_episode_calibrate_it(task: Episode) -> None:
    auto = Estimator("tip-adapter", beta=5.5, alpha=1.0).fit(task)
    none = Estimator("tip-adapter", calibrate_on="none", beta=5.5, alpha=1.0).fit(task)
    logits, t = none.decision_function(task.query), auto.head_.temperature
    assert (none.head_.temperature, none.head_.calibration) == (1, None)
    assert t != 1
    assert torch.equal(auto.decision_function(task.query), logits)
    assert torch.equal(none.predict_proba(task.query), torch.softmax(logits, -1))
    assert torch.equal(auto.predict_proba(task.query), torch.softmax(logits / t, -1))
    assert task.val is not None
    assert loss(auto.predict_proba(task.val), task.val) < loss(
        none.predict_proba(task.val), task.val
    )


def test_folds_of_arrays_calibrate_it(task: Episode) -> None:
    rows = task.view.support
    x, y = rows.x.numpy(), rows.y.numpy()
    plain, folds = (Estimator("gda", calibrate_on=c).fit(x, y) for c in ("auto", "folds"))
    assert (plain.head_.temperature, plain.head_.calibration) == (1, None)
    assert folds.head_.calibration is not None
    assert folds.head_.calibration.kind == "cross"
    assert folds.head_.calibration.rows == len(y)
    assert (folds.predict(task.query.x) == plain.predict(task.query.x)).all()
    found = [torch.from_numpy(each.predict_proba(task.query.x)) for each in (plain, folds)]
    assert loss(found[1], task.query) < loss(found[0], task.query)
    assert folds.head_.sets(task.query.x, coverage=0.8).shape == (50, 5)


def test_what_cannot_calibrate_it_is_refused_before_training(task: Episode) -> None:
    with pytest.raises(UnknownNameError, match=r"calibration 'half-val'.*auto, folds, none"):
        Estimator("gda", calibrate_on="half-val").fit(task)
    with pytest.raises(TaskError, match="no class with two labelled images"):
        Estimator("ridge", calibrate_on="folds").fit([[1.0, 0.0], [0.0, 1.0]], [0, 1])


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
