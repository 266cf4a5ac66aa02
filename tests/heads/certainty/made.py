"""Plans and heads of a toy world with validation images to spare."""

from typing import Any

from featcache.types import FeatureSet
from heads.head import Head
from heads.protocols import evaluation, training
from heads.protocols.plan import Plan, Request

COUNTS = {"train": 12, "val": 20, "test": 30}
MADE: dict[str, Any] = {"method": "tip-adapter", "shots": 8, "seeds": (1,)}


def plan(features: FeatureSet, **wanted: Any) -> Plan:
    return training.plan(Request(features=features, **{**MADE, **wanted}))


def trained(features: FeatureSet, **wanted: Any) -> Head:
    return evaluation.fit(plan(features, **wanted))[0]
