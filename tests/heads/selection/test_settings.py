"""Settings: parsed by type and range, near names for unknown ones, grids of the user's own."""

import re
from typing import Any

import pytest

from featcache.errors import UnknownNameError, UsageError
from heads import registry
from heads.contract.method import AnyMethod
from heads.selection.settings import configure


def test_defaults(toy: AnyMethod) -> None:
    settings = configure(toy)
    assert settings.config == toy.config()
    assert settings.choices == 12
    assert settings.variant == ""


def test_a_value_fixes_and_leaves_the_grids(toy: AnyMethod) -> None:
    settings = configure(toy, {"alpha": "2", "lr": "0.1", "epochs": "3"})
    assert settings.hyper.alpha == 2.0
    assert settings.config.epochs == 3
    assert (settings.train_grid.points(), settings.post_grid.points()) == ([{}], [{}])
    assert settings.variant == "alpha=2 epochs=3 lr=0.1"


def test_several_values_make_a_grid_of_ones_own(toy: AnyMethod) -> None:
    settings = configure(toy, {"alpha": "0.5,1", "shift": [0, 1]})
    assert settings.post_grid.points() == [{"alpha": 0.5}, {"alpha": 1.0}]
    assert settings.train_grid.axes["shift"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": "1.5"}, "epochs must be a whole number, got '1.5'"),
        ({"epochs": "-1"}, "epochs must be a whole number of at least 0"),
        ({"epochs": str(2**63)}, "epochs must be a whole number less than"),
        ({"lr": "0"}, "lr must be a number above 0, got '0'"),
        ({"lr": "nan"}, "finite"),
        ({"alpha": "1,-2"}, "alpha must be a number of at least 0, got '-2'"),
        ({"alpha": "much"}, "alpha must be a number, got 'much'"),
        ({"alpha": "1,"}, "alpha must be a number, got ''"),
    ],
)
def test_a_wrong_value_is_named(toy: AnyMethod, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match="toy's setting") as caught:
        configure(toy, given)
    assert words in str(caught.value)
    assert re.search(r"write e\.g\. \w+=", str(caught.value))


def test_an_unknown_setting_lists_near_ones(toy: AnyMethod) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'alpha'"):
        configure(toy, {"alhpa": 1})


def test_choices_and_switches_of_a_real_method() -> None:
    cmm = registry.get("cmm")
    settings = configure(cmm, {"text": "name", "triplet": "no"})
    assert settings.config.text == "name"
    assert settings.config.triplet is False
    assert configure(cmm, {"text": "none"}).config.text is None
    with pytest.raises(UnknownNameError, match="'description'"):
        configure(cmm, {"text": "descriptions"})
    with pytest.raises(UsageError, match="true or false, got 'maybe'"):
        configure(cmm, {"triplet": "maybe"})


def test_registry_names_near_methods() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tip-adapter'"):
        registry.get("tip_adapter")
    assert {d.name for d in registry.describe()} == set(registry.names())


def test_what_was_set_reads_back_as_numbers(toy: AnyMethod) -> None:
    settings = configure(toy, {"alpha": "2", "lr": "0.1,0.2", "epochs": "3"})
    assert settings.as_numbers() == {"alpha": 2.0, "lr": "0.1,0.2"}


def test_defaults_may_depend_on_the_shots_and_what_was_set_stays(make_toy: Any) -> None:
    method = make_toy("toy", defaults=lambda shots: {"alpha": 9.0 if shots is None else 1 / shots})
    assert configure(method, shots=4).hyper.alpha == 0.25
    assert configure(method).hyper.alpha == 9.0
    assert configure(method, {"alpha": "2"}, shots=4).hyper.alpha == 2.0
    assert configure(method, {"lr": "0.1"}, shots=4).hyper.alpha == 0.25
