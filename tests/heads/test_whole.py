"""Shots and seeds of another type get a sentence that names the argument."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jaxtyping import config

import heads
from featcache.errors import UsageError
from featcache.types import FeatureSet
from heads.whole import seeds_of, shots_of, whole

World = Callable[..., FeatureSet]


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let wrong types through, as outside of tests, where nothing checks annotations."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


@pytest.mark.parametrize("value", ["4", 4.0, True, [4]])
def test_wrong_types_at_the_front_door(world: World, value: Any) -> None:
    cache = world()
    with pytest.raises(UsageError, match=r"^shots must be a whole number .* of type "):
        heads.fit("ridge", cache, shots=value)
    with pytest.raises(UsageError, match=r"^seed must be a whole number .* of type "):
        heads.fit("ridge", cache, seed=value)
    with pytest.raises(UsageError, match=r"^shots must be a whole number .* of type "):
        heads.evaluate("ridge", cache, shots=value)
    with pytest.raises(UsageError, match=r"^seed must be a whole number .* of type "):
        heads.Estimator("ridge", seed=value).fit([[1.0, 0.0], [0.0, 1.0]], [0, 1])


@pytest.mark.parametrize("value", ["4", 1.5, None, True, ["1"], [1.0]])
def test_wrong_types_of_seeds(world: World, value: Any) -> None:
    with pytest.raises(UsageError, match=r"^seeds must be a whole number .* of type "):
        heads.evaluate("ridge", world(), seeds=value)


def test_numbers_of_numpy_are_whole_numbers() -> None:
    assert whole("seed", np.int64(3)) == 3
    assert shots_of(None) is None
    assert shots_of(np.int32(4)) == 4
    assert seeds_of(np.int64(2)) == (1, 2)
    assert seeds_of(np.array([2, 5])) == seeds_of(range(2, 6, 3)) == (2, 5)
