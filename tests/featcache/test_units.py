"""Sizes and durations as text."""

import pytest

from featcache.units import human_bytes, human_seconds, rough_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (704, "704 B"),
        (70_400, "70.4 kB"),
        (3 * 10**9, "3.0 GB"),
        (2_500 * 10**12, "2500.0 TB"),
    ],
)
def test_bytes_have_decimal_units(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0.2, "0.2 s", "1 s"),
        (80.0, "1 min 20 s", "80 s"),
        (600.0, "10 min 00 s", "10 min"),
        (9000.0, "2 h 30 min", "2.5 h"),
    ],
)
def test_durations_are_exact_or_rough(seconds: float, exact: str, rough: str) -> None:
    assert (human_seconds(seconds), rough_seconds(seconds)) == (exact, rough)
