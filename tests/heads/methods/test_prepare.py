"""What `prepare` reads is what `number(..., prepare=True)` says: grid points are grouped by it."""

from typing import Any

import pytest

from featcache.errors import UsageError
from featcache.types import FeatureSet
from heads import registry
from heads.contract.facts import bind
from heads.contract.method import AnyMethod
from tests.heads.toy_tasks import make_task, rich_world, variants


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return rich_world()


def spying(method: AnyMethod, read: set[str]) -> Any:
    """Return a Hyper at its defaults that notes which of its fields are read."""
    names = set(method.hyper.__dataclass_fields__)

    def noted(self: Any, name: str) -> Any:
        if name in names:
            read.add(name)
        return object.__getattribute__(self, name)

    spy: Any = type("Spying", (method.hyper,), {})
    made = spy()
    spy.__getattribute__ = noted  # not before: the constructor reads all fields
    return made


@pytest.mark.parametrize("name", registry.names())
def test_prepare_reads_what_is_declared_and_every_field_of_it(
    name: str, features: FeatureSet
) -> None:
    method = registry.get(name)
    read: set[str] = set()
    refused = 0
    configs = variants(method, features)
    for config in configs:
        view = make_task(features, method, config).view
        try:
            method.prepare(view, bind(method, config, [view]), spying(method, read))
        except UsageError:  # choices that exclude each other
            refused += 1
    assert refused < len(configs)
    assert read == set(method.prepare_fields)
