"""Sizes, durations and times as text for people."""

from datetime import datetime


def human_bytes(count: float | int) -> str:
    """Format a number of bytes in decimal units.

    Example:
        >>> human_bytes(1_240_000_000)
        '1.2 GB'
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Format a measured duration.

    Example:
        >>> [human_seconds(s) for s in (4.21, 185, 7_800)]
        ['4.2 s', '3 min 05 s', '2 h 10 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rough_seconds(seconds: float) -> str:
    """Format an estimated duration in one unit, at least 1 s.

    Example:
        >>> [rough_seconds(s) for s in (0.2, 80, 600, 9_000)]
        ['1 s', '80 s', '10 min', '2.5 h']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def human_time(when: datetime) -> str:
    """Format a time in the local zone, to the minute.

    Args:
        when: The time; without a zone it is local.

    Example:
        >>> human_time(datetime(2026, 3, 1, 12, 30, 59))[:16]
        '2026-03-01 12:30'
    """
    return when.astimezone().strftime("%Y-%m-%d %H:%M %Z")
