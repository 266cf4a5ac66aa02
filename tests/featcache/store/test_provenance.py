import numpy

from featcache.store.provenance import versions_of


def test_installed_packages_are_named_and_others_are_left_out() -> None:
    assert versions_of("numpy", "no-such-package") == {"numpy": numpy.__version__}
