"""One image of which something is asked, and an opened source of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from featcache.places import Place


@dataclass(frozen=True, slots=True)
class QueryImage:
    """An image, or the reason why there is none."""

    id: str
    """The path as the user wrote it, or what leads to it, on one line."""
    place: Place | None
    """Where its bytes are; None with a reason."""
    label: str | None = None
    """Name of its class according to the source; None if it says nothing."""
    reason: str = ""
    """Why it cannot be used, as a predicate: "is outside photos/"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """The images of one source, opened and not yet listed."""

    images: Iterator[QueryImage]
    """Can be gone through once."""
    count: int | None = None
    """Number of images; None if it is not known before they are listed."""
    notes: Callable[[], list[str]] = list
    """Return what the user should know once the images were gone through, a sentence each."""
