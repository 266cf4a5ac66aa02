"""The collector waits within, and runs again afterwards."""

import gc

import pytest

from featcache.collector import waiting_collector


def test_it_runs_again_after_an_error() -> None:
    seen = []

    @waiting_collector()
    def fail() -> None:
        seen.append(gc.isenabled())
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (seen, gc.isenabled()) == ([False], True)


def test_where_it_is_off_it_stays_off() -> None:
    gc.disable()
    try:
        with waiting_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
