"""Tables for people: what fits a window."""

import pytest

from cli._ui import fitting

COLUMNS = ("method", "top-1 %", "seconds", "source")
ROWS = [("tip-adapter", "82.0 ± 1.8", "0.1", "paper, released code")]  # 14, 13, 10 and 23 wide


@pytest.mark.parametrize(
    ("width", "kept"),
    [
        (60, ["method", "top-1 %", "seconds", "source"]),
        (59, ["method", "top-1 %", "seconds"]),
        (37, ["method", "top-1 %", "seconds"]),
        (36, ["method", "top-1 %"]),
        (5, ["method", "top-1 %"]),
    ],
)
def test_spare_columns_go_in_their_order(width: int, kept: list[str]) -> None:
    assert fitting(COLUMNS, ROWS, ("source", "seconds"), width) == kept
