"""Which cases of a test `make test` runs; `make test-all` runs all of them."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], count: int) -> list[Any]:
    """Mark all cases `long` but a few, spread evenly over the list.

    Args:
        cases: Values of `parametrize`; a tuple is one case of several arguments.
        count: Cases that `make test` runs.
    """
    every = list(cases)
    chosen = {round(i * (len(every) - 1) / max(1, count - 1)) for i in range(count)}
    return [
        case
        if i in chosen
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
        for i, case in enumerate(every)
    ]
