"""Numbers and lists of names, as people read them."""

from collections.abc import Sequence

from featcache.units import human_bytes, human_seconds, human_time

__all__ = ["human_bytes", "human_seconds", "human_time", "some"]


def some(names: Sequence[str], most: int = 8) -> str:
    """Say the first of many names, and how many there are."""
    first = ", ".join(names[:most])
    return f"{first}, ... ({len(names)} in all)" if len(names) > most else first
