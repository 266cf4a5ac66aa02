"""Location of the bytes of an encoded image, and how to read them."""

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from featcache.limits import Limit
from featcache.paths import as_text, read_regular


@runtime_checkable
class Place(Protocol):
    """Location of the bytes of one image: a whole file, or a part of an archive or table.

    Messages name it by `str(place)`.
    """

    @property
    def container(self) -> Path:
        """The file on disk that holds the bytes; unchanged as long as its size and times are."""
        ...

    @property
    def within(self) -> str:
        """Name of the part of the container; empty for the whole file."""
        ...

    def stat(self) -> os.stat_result:
        """Return size and times of the container: now, or when the part was found in it.

        Raises:
            OSError: If the container is gone or cannot be accessed.
        """
        ...

    def size(self) -> int:
        """Return the memory in bytes that reading takes, without reading.

        Raises:
            OSError: If the container is gone or damaged.
        """
        ...

    def read(self, limit: Limit) -> bytes:
        """Read the bytes.

        Raises:
            OSError: If they are gone, damaged, or more than the limit.
            SourceError: If the container has changed since labels were read from it.
        """
        ...


class FilePlace:
    """A whole file.

    Only the text of its path is kept: a data set has millions of these, and a `Path` takes half a
    kilobyte.

    Example:
        >>> place = FilePlace("photos/1.jpg")
        >>> place.container, place.within
        (PosixPath('photos/1.jpg'), '')
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path | str) -> None:
        """Take the path as it is; nothing is looked up.

        Args:
            path: The file, which may be a link.
        """
        self._path = path if type(path) is str else os.fspath(path)

    @property
    def path(self) -> Path:
        """The file itself."""
        return Path(self._path)

    @property
    def container(self) -> Path:
        """The file itself."""
        return Path(self._path)

    @property
    def within(self) -> str:
        """Empty: the whole file."""
        return ""

    def stat(self) -> os.stat_result:
        """Look at the file now, links followed; errors as the protocol has them."""
        return os.stat(self._path)  # noqa: PTH116 - no Path for each of a million files

    def size(self) -> int:
        """Return the size of the file now; errors as the protocol has them."""
        return self.stat().st_size

    def read(self, limit: Limit) -> bytes:
        """Read the file whole, links followed; errors as `featcache.paths.read_regular`."""
        return read_regular(Path(self._path), limit)

    def __str__(self) -> str:
        return as_text(self._path)

    def __repr__(self) -> str:
        return f"FilePlace({self._path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FilePlace) and self._path == other._path

    def __hash__(self) -> int:
        return hash(self._path)
