"""Bytes from somewhere: where an encoded image lies, and how to read it and nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from featcache.limits import Limit
from featcache.paths import as_text, read_regular


class Place(Protocol):
    """Where the bytes of one file lie: a file of its own, or a part of a larger one."""

    @property
    def container(self) -> Path:
        """The file on disk that holds the bytes; its size and times vouch for them."""
        ...

    @property
    def within(self) -> str:
        """Which part of the container it is; empty where it is the whole file."""
        ...

    def read(self, limit: Limit) -> bytes:
        """Read the bytes.

        Raises:
            OSError: If they are gone, damaged, or more than the limit.
        """
        ...


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A file of its own."""

    path: Path

    @property
    def container(self) -> Path:
        """The file itself."""
        return self.path

    @property
    def within(self) -> str:
        """Empty: the whole file."""
        return ""

    def read(self, limit: Limit) -> bytes:
        """Read the file whole, links followed; errors as `featcache.paths.read_regular`."""
        return read_regular(self.path, limit)

    def __str__(self) -> str:
        return as_text(self.path)
