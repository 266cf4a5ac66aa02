"""Files inside an archive that is read in place: what zip and tar have in common.

An archive comes from a stranger. Its names are checked when it is opened: whatever could lie
outside the folder that it is unpacked into, or be taken for another file, is refused.
"""

import errno
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featcache.errors import SourceError
from featcache.limits import MEMBERS, Limit
from featcache.paths import as_text, check_bytes, open_descriptor, pread
from featcache.sources.trees.names import id_of
from featcache.sources.trees.unchanged import check_unchanged

LONGEST_PATH = 4096
"""Bytes of the name of a file with its folders, as Linux has it."""
DEEPEST = 64
"""Folders that a file may lie in."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNPACK = "Unpack it once with a tool that you trust and name the folder: folder:PATH."


class Archive:
    """An archive as it was when it was opened."""

    __slots__ = ("path", "state")

    def __init__(self, path: Path, state: os.stat_result) -> None:
        """Keep the path and the state that the index belongs to."""
        self.path, self.state = path, state

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the archive for one reading; threads share no file handle."""
        handle = open_descriptor(self.path)
        try:
            yield handle
        finally:
            os.close(handle)

    def check_same(self, handle: int) -> None:
        """Check that an open file is the archive that the index belongs to, unchanged.

        Raises:
            SourceError: If it has changed.
        """
        check_unchanged(self.path, self.state, os.fstat(handle))

    def refused(self, why: str, advice: str = _UNPACK) -> SourceError:
        """Return the error that refuses the whole archive."""
        return SourceError(f"Archive {self.path} {why}. {advice}")


class Member(ABC):
    """A file inside an archive; zip and tar add how it is read."""

    __slots__ = ("_size", "archive", "within")

    def __init__(self, archive: Archive, within: str, size: int) -> None:
        """Keep what the index of the archive says.

        Args:
            archive: Which holds it.
            within: Its path there, with `/`.
            size: Its bytes.
        """
        self.archive, self.within, self._size = archive, within, size

    @property
    def container(self) -> Path:
        """The archive."""
        return self.archive.path

    def stat(self) -> os.stat_result:
        """Return the state of the archive when it was opened."""
        return self.archive.state

    def size(self) -> int:
        """Return the bytes that reading takes."""
        return self._size

    def read(self, limit: Limit) -> bytes:
        """Read the file; errors as the protocol has them."""
        check_bytes(self, self._size, limit)
        with self.archive.opened() as handle:
            try:
                data = self._read(handle)
            except OSError:
                self.archive.check_same(handle)
                raise
            self.archive.check_same(handle)
        return data

    @abstractmethod
    def _read(self, handle: int) -> bytes:
        """Read the file from the open archive."""

    def _damaged(self, why: str) -> OSError:
        return OSError(errno.EIO, f"is damaged: {why}", str(self))

    def _pread(self, handle: int, offset: int, count: int) -> bytes:
        data = pread(handle, offset, count)
        if len(data) != count:
            raise self._damaged(f"{as_text(self.container.name)} ends within it")
        return data

    def __str__(self) -> str:
        return f"{as_text(self.container.name)}: {id_of(self.within)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Member):
            return NotImplemented
        return (self.container, self.within) == (other.container, other.within)

    def __hash__(self) -> int:
        return hash((self.container, self.within))


class Names:
    """The names in an archive while it is opened: each is checked, and none comes twice."""

    def __init__(self, archive: Archive) -> None:
        """Start without names."""
        self.files: dict[str, Member] = {}
        self.folders: set[str] = set()
        """Those that have an entry of their own."""
        self._archive, self._most = archive, MEMBERS.value()

    def __len__(self) -> int:
        return len(self.files) + len(self.folders)

    def check(self, name: str) -> str:
        """Return a name with `/` between folders and nothing else but their names.

        Raises:
            SourceError: If it is absolute, leads upwards or is not plain, or there are too many.
        """
        parts = name.split("/")
        if why := _fault(name, parts):
            raise self._archive.refused(f"has the name {name[:200]!a}, which {why}")
        if len(self) >= self._most:
            raise self._archive.refused(
                f"has more than {self._most} files",
                f"{MEMBERS.variable} raises the limit.",
            )
        if "" in parts or "." in parts:
            return "/".join(part for part in parts if part not in ("", "."))
        return name

    def add_folder(self, path: str) -> None:
        """Enter a folder; it may come twice."""
        if path:
            self.folders.add(path)

    def add_file(self, path: str, member: Member) -> None:
        """Enter a file.

        Raises:
            SourceError: If there is one of that name.
        """
        if path in self.files:
            raise self._archive.refused(f"has two files called {path[:200]!a}")
        if not path:
            raise self._archive.refused("has a file without a name")
        self.files[path] = member

    def check_folders(self) -> None:
        """Refuse a file whose path is also a folder.

        Raises:
            SourceError: If there is one.
        """
        parents = {path.rpartition("/")[0] for path in self.files} | self.folders
        for parent in parents:
            at = len(parent)
            while at > 0:
                if parent[:at] in self.files:
                    raise self._archive.refused(
                        f"has both a file and a folder called {parent[:at][:200]!a}"
                    )
                at = parent.rfind("/", 0, at)


def _fault(name: str, parts: list[str]) -> str:
    if name.startswith("/"):
        return "is absolute"
    if ".." in parts:
        return "leads out of its folder"
    if "\\" in name:
        return "has a backslash, whose meaning differs between systems"
    if _CONTROL.search(name):
        return "has control characters"
    if len(name) > LONGEST_PATH // 4 and len(os.fsencode(name)) > LONGEST_PATH:
        return f"is longer than {LONGEST_PATH} bytes"
    if len(parts) > DEEPEST + 1:
        return f"lies in more than {DEEPEST} folders"
    return ""
