"""Numbers and lists of names, as people read them."""

from collections.abc import Sequence


def human_bytes(count: float) -> str:
    """Say a number of bytes in decimal units: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


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
