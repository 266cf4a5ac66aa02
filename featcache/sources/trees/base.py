"""Files below a root, in a folder or an archive, as layouts see them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from featcache.limits import Limit
from featcache.places import Place


class Entry(NamedTuple):
    """One file of a tree; a tuple, because there are millions."""

    id: str
    """Path below the root with `/`, on one line; unique in the tree."""
    place: Place
    folders: tuple[str, ...]
    """Folders between the root and the file."""


@dataclass(frozen=True, slots=True)
class FoundImages:
    """All images of a tree, in the order of their names."""

    images: tuple[Entry, ...]
    notes: tuple[str, ...]
    """Sentences about files that were left out."""
    empty: tuple[tuple[str, ...], ...] = ()
    """Folders with no image in or below them."""


@runtime_checkable
class Tree(Protocol):
    """Files below one root: a folder, or an archive that is read in place.

    Layouts read images and lists through it and do not access the disk themselves.
    """

    @property
    def root(self) -> Path:
        """Folder or archive that ids are relative to."""
        ...

    def images(self) -> FoundImages:
        """Find every image.

        Raises:
            SourceError: If the tree cannot be read.
        """
        ...

    def find(self, path: str) -> Place | None:
        """Return the file at a path below the root, with `/`; None where there is none."""
        ...

    def has_folder(self, path: str) -> bool:
        """Tell whether there is a folder at a path below the root."""
        ...

    def names(self, path: str = "") -> Iterator[str]:
        """Yield the names in a folder in order, without hidden ones."""
        ...

    def read(self, path: str, limit: Limit) -> bytes:
        """Read a list beside the images, such as a csv file.

        Raises:
            SourceError: If it is not there, cannot be read, or is larger than the limit.
        """
        ...

    def below(self, path: str) -> "Tree":
        """Return the tree of a folder of this one; ids are relative to that folder."""
        ...
