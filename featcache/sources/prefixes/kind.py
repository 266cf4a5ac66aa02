"""Interface of a kind of source: how `PREFIX:PATH` becomes a data set."""

from collections.abc import Callable
from dataclasses import dataclass

from featcache.errors import UsageError
from featcache.paths import expand
from featcache.sources.base import Dataset
from featcache.wording import Argument


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
    has_options: bool = False
    """Whether options may follow the path, as in `csv:photos.csv?label=species`."""


def refuse_options(prefix: str, text: str) -> None:
    """Raise if options follow the path of a kind of source that takes none.

    Args:
        prefix: The kind's.
        text: What stands behind the colon; a path that holds a question mark is no option.

    Raises:
        UsageError: If that is so.
    """
    path, mark, rest = text.rpartition("?")
    if mark and "=" in rest and not expand(text).exists():
        raise UsageError(
            f"{prefix}: takes no options, got '?{rest}'; write ",
            Argument("dataset", f"{prefix}:{path}"),
            ".",
        )
