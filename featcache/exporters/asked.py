"""What may be asked of a table; read before torch is loaded, so that a wrong value is told at once.

`featcache.exporters.projection`, `nearest` and `parquet` make it.
"""

from pathlib import Path

from featcache.errors import UnknownNameError, UsageError
from featcache.store.format.outputs import in_the_way
from featcache.wording import Argument

PROJECTIONS = ("pca", "tsne", "none")
"""Projections by name."""
MOST_NEIGHBORS = 1000
"""Neighbours that are written of each row at most."""
LARGEST_THUMBNAIL = 1024
"""Longest side of a thumbnail in pixels."""


def check_place(out: Path) -> None:
    """Refuse to write a table where a folder, a device or a pipe is.

    Raises:
        UsageError: If one is there.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder; name a file in it with ", Argument("out"), ".")
    if in_the_way(out):
        raise UsageError(f"{out} is no plain file; name another with ", Argument("out"), ".")


def check_name(projection: str) -> None:
    """Refuse a projection that there is not.

    Raises:
        UnknownNameError: If it is unknown.
    """
    if projection not in PROJECTIONS:
        raise UnknownNameError("projection", projection, PROJECTIONS)


def check_sizes(*, neighbors: int, thumbnails: int) -> None:
    """Refuse numbers of neighbours and sides of thumbnails that no table has.

    Raises:
        UsageError: If one is negative or too large.
    """
    if not 0 <= neighbors <= MOST_NEIGHBORS:
        raise UsageError(
            Argument("neighbors", neighbors), f" is not between 0 and {MOST_NEIGHBORS} rows."
        )
    if not 0 <= thumbnails <= LARGEST_THUMBNAIL:
        raise UsageError(
            Argument("thumbnails", thumbnails),
            f" is not between 0 and {LARGEST_THUMBNAIL} pixels.",
        )
