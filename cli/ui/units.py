"""Numbers and lists of names, as people read them."""

from collections.abc import Sequence

from featcache.counts import human_bytes as human_bytes


def human_seconds(seconds: float) -> str:
    """Say a duration: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def some(names: Sequence[str], most: int = 8) -> str:
    """Say the first of many names, and how many there are."""
    first = ", ".join(names[:most])
    return f"{first}, ... ({len(names)} in all)" if len(names) > most else first
