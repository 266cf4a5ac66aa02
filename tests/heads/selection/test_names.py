"""Names that are known before torch is loaded are those that count afterwards."""

from dataclasses import fields

import pytest

from featcache.errors import UnknownNameError
from heads import registry
from heads.selection import names as words


@pytest.mark.parametrize("name", registry.names())
def test_settings_read_off_the_source_are_those_of_the_method(name: str) -> None:
    method = registry.get(name)
    expected = [f.name for f in (*fields(method.config), *fields(method.hyper))]
    assert list(words.setting_names(name)) == expected


def test_an_unknown_setting_is_refused_with_near_ones() -> None:
    words.check_settings("tip-adapter", ["alpha", "beta"])
    with pytest.raises(UnknownNameError, match="did you mean 'alpha'"):
        words.check_settings("tip-adapter", ["alpah"])
