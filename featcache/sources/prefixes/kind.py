"""Interface of a kind of source: how `PREFIX:PATH` becomes a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import UsageError
from featcache.paths import expand
from featcache.sources.base import Dataset, FurtherColumns, Report
from featcache.wording import Argument


@dataclass(frozen=True, slots=True)
class Brought:
    """What `Kind.fetch` leaves to `Kind.open`."""

    text: str
    """What would stand behind the colon for the files that are here now."""
    notes: tuple[str, ...] = ()
    """What the user should know, a sentence each."""


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
    fetch: "Callable[[str, Path, bool, Report | None], Brought] | None" = None
    """Bring here what the text names elsewhere, before `open`. Called with the text, where data
    sets are kept, whether missing files may be fetched, and whom to tell; None for kinds that only
    read what is here."""
    further: "Callable[[str], FurtherColumns] | None" = None
    """Read what a list says of its images besides class and split; None for kinds that have no such
    columns."""
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
