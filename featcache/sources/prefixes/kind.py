"""Interface of a kind of source: how `PREFIX:PATH` becomes a data set."""

from collections.abc import Callable
from dataclasses import dataclass

from featcache.sources.base import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of source.

    Every function takes what stands behind the colon as the user wrote it, and raises a
    `SourceError` where there is nothing of that kind.
    """

    prefix: str
    example: str
    """How it is used, for messages: `folder:photos/`."""
    name_of: Callable[[str], str]
    """Return what the data set is called where the user gives no name; reads no images."""
    open: Callable[[str, str], Dataset]
    """List the images; the second argument is the data set's name."""
