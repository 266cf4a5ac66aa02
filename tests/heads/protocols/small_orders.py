"""Small draws of batches and streams from the test images of a toy world."""

from typing import Any

import numpy as np

from featcache.types import FeatureSet
from heads.protocols import order_draws
from heads.protocols.orders import Orders

COUNTS: dict[str, Any] = {"train": 2, "val": 2, "test": (3, 9, 5, 7, 6)}


def batches(features: FeatureSet, **more: Any) -> Orders:
    given = {"batch": 8, "effective_classes": (1, 3), "repeats": 20, "seed": 1, **more}
    return order_draws.draw_batches(features, "test", **given)


def streams(features: FeatureSet, **more: Any) -> Orders:
    given = {"batch": 8, "correlation": 0.01, "repeats": 4, "seed": 1, **more}
    return order_draws.draw_streams(features, "test", **given)


def same(one: Orders, other: Orders) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.rows, other.rows, strict=True))
