"""Progress of an extraction, as it is reported several times a second."""

from collections.abc import Callable
from dataclasses import dataclass

from featcache.progress import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """State of an extraction."""

    stage: str
    """encode during a pass; before it what is being done, e.g. hashing images."""
    done: int
    total: int
    rate: float = 0.0
    """Images a second since the pass began."""
    eta_s: float | None = None
    """Seconds until the end of the pass; None before the first image."""
    bytes: int = 0
    """Bytes written so far."""
    binding: str = ""
    """Stage that the pass has waited for longest: decode, encode or write."""
    bad: int = 0
    """Images that could not be read."""


def reporter(progress: Callable[[Progress], None] | None) -> Report:
    """Return a function (activity, done so far, of how many) that reports progress before a pass.

    Args:
        progress: Called with each report; None ignores them.
    """

    def report(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(stage=what, done=done, total=total))

    return report
