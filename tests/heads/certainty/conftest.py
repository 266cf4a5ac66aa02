"""A toy world, and heads that its validation images or folds calibrated."""

from collections.abc import Callable

import pytest

from featcache.types import FeatureSet
from heads.head import Head
from tests.heads.certainty.made import COUNTS, trained


@pytest.fixture(scope="session")
def features(world: Callable[..., FeatureSet]) -> FeatureSet:
    return world(counts=COUNTS, noise=0.6)


@pytest.fixture(scope="session")
def split(features: FeatureSet) -> Head:
    return trained(features)


@pytest.fixture(scope="session")
def cross(features: FeatureSet) -> Head:
    return trained(features, calibrate_on="folds", shots=12)
