"""LaZSL on caches: which crops and texts it needs, and how it asks for those that are missing."""

from collections.abc import Callable

import pytest

import heads
from featcache.errors import MissingComponentError
from featcache.types import FeatureSet
from heads.protocols import training

CROPPED = {"crops.lazsl-5": (5,)}


def test_no_shots_are_read_or_recorded(world: Callable[..., FeatureSet]) -> None:
    features = world(also=CROPPED, descriptions=True)
    result = training.run("lazsl", features=features, shots=16)
    assert (result.shots, result.selection, result.protocol) == (0, "none", "zero_shot")
    assert result.metrics["top1"].mean > 0.5


def test_any_number_of_crops_will_do(world: Callable[..., FeatureSet]) -> None:
    for also in ({"crops.lazsl-1": (1,)}, {"crops.lazsl-33": (33,)}):
        features = world(also=also, descriptions=True)
        for score in ("lazsl", "wca", "awt"):
            training.run("lazsl", features=features, shots=1, settings={"score": score})


def test_missing_crops_are_named_with_the_command(world: Callable[..., FeatureSet]) -> None:
    features = world(descriptions=True)
    wanted = r"featcache\.extract\(dataset='toy', backbone='tiny', .*crops=\['60'\]"
    with pytest.raises(MissingComponentError, match=wanted):
        training.run("lazsl", features=features, shots=1)
    training.run("lazsl", features=features, shots=1, settings={"score": "dclip"})


def test_missing_descriptions_are_named(world: Callable[..., FeatureSet]) -> None:
    with pytest.raises(MissingComponentError, match="'description'"):
        training.run("lazsl", features=world(also=CROPPED), shots=1)


def test_missing_crops_and_descriptions_come_in_one_message(
    world: Callable[..., FeatureSet],
) -> None:
    both = (
        r"needs crops of recipe lazsl.*, and texts of kind 'description' for every class\. Add "
        r"them with: featcache\.extract\(.*crops=\['60'\], descriptions=FILE\.json\)$"
    )
    with pytest.raises(MissingComponentError, match=both):
        training.run("lazsl", features=world(), shots=1)
    with pytest.raises(MissingComponentError, match=both):
        heads.fit("lazsl", world())
    with pytest.raises(MissingComponentError, match=r"or extract again with descriptions=FILE"):
        heads.fit("lazsl", world(also=CROPPED))
