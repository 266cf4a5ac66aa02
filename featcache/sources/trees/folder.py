"""A folder on disk as a tree: what is listed, and what is never followed.

Hidden files are left out, and so are links that leave the root or lead in circles, and what is no
plain file. Folders are scanned without a `Path` or a look-up per file, so that a million of them
take seconds.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import SourceError
from featcache.limits import Limit
from featcache.paths import as_text, from_text
from featcache.places import FilePlace, Place
from featcache.sources.trees.base import Entry, FoundImages
from featcache.sources.trees.names import LeftOut, id_of, is_below, is_hidden, is_image


@dataclass(frozen=True, slots=True)
class FolderTree:
    """The files below a folder."""

    root: Path
    """The folder, resolved."""
    _inside: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)
    """Folder -> whether it is below the root, links followed."""

    def images(self) -> FoundImages:
        """Find every image; errors as the protocol has them."""
        return _Walk(self.root, LeftOut()).found()

    def walk(self, left: LeftOut) -> Iterator[Entry]:
        """Yield the images folder by folder, in the order of `images`.

        Args:
            left: Told what is left out; folders that cannot be read are left out, too.

        Raises:
            SourceError: If the root cannot be read.
        """
        return _Walk(self.root, left, lenient=True).walk()

    def find(self, path: str) -> Place | None:
        """Return the file at a path; None where there is none, or where a link leads out."""
        full = self._full(path)
        if full is None:
            return None
        try:
            found = os.lstat(full)
            if stat.S_ISLNK(found.st_mode):
                found = os.stat(full)  # noqa: PTH116
                if not self._is_inside(full):
                    return None
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode) or not self._is_inside(os.path.dirname(full)):  # noqa: PTH120
            return None
        return FilePlace(full)

    def has_folder(self, path: str) -> bool:
        """Tell whether there is a folder at a path below the root; the empty path is the root."""
        full = self._full(path) if path else os.fspath(self.root)
        return full is not None and os.path.isdir(full) and self._is_inside(full)  # noqa: PTH112

    def names(self, path: str = "") -> Iterator[str]:
        """Yield the names in a folder in order, without hidden ones.

        Raises:
            SourceError: If there is no such folder, or it cannot be read.
        """
        if not self.has_folder(path):
            raise SourceError(f"There is no folder {path!r} in {self.root}.")
        for entry in _entries(os.path.join(self.root, from_text(path))):  # noqa: PTH118
            yield as_text(entry.name)

    def read(self, path: str, limit: Limit) -> bytes:
        """Read a list beside the images; errors as the protocol has them."""
        place = self.find(path)
        if place is None:
            raise SourceError(f"There is no file {path!r} in {self.root}.")
        try:
            return place.read(limit)
        except OSError as error:
            raise SourceError(
                f"File {place} could not be read ({error.strerror or error})."
            ) from error

    def below(self, path: str) -> "FolderTree":
        """Return the tree of a folder of this one.

        Raises:
            SourceError: If there is no such folder.
        """
        if not self.has_folder(path):
            raise SourceError(f"There is no folder {path!r} in {self.root}.")
        return FolderTree((self.root / from_text(path)).resolve())

    def _full(self, path: str) -> str | None:
        return os.path.join(self.root, from_text(path)) if is_below(path) else None  # noqa: PTH118

    def _is_inside(self, path: str) -> bool:
        """Tell whether a path leads to something below the root; folders are remembered."""
        known = self._inside.get(path)
        if known is None:
            known = Path(os.path.realpath(path)).is_relative_to(self.root)
            self._inside[path] = known
        return known


@dataclass(slots=True)
class _Level:
    """A folder that is being walked through."""

    text: str
    """Its path below the root, with `/` at the end; empty for the root."""
    folders: tuple[str, ...]
    real: str
    """Where it is, links resolved."""
    entries: Iterator["os.DirEntry[str]"]
    before: int
    """Images found before it."""


class _Walk:
    """One search for images: an explicit stack, since folders may lie deeper than Python calls."""

    def __init__(self, root: Path, left: LeftOut, *, lenient: bool = False) -> None:
        self._root = root
        self._images: list[Entry] = []
        """Found since the last folder was entered or left."""
        self._before = 0
        """Images found before these."""
        self._empty: list[tuple[str, ...]] = []
        self._left = left
        self._lenient = lenient

    def found(self) -> FoundImages:
        images = tuple(self.walk())
        notes = tuple(self._left.notes(as_text(self._root.name)))
        return FoundImages(images, notes, tuple(self._empty))

    def walk(self) -> Iterator[Entry]:
        root = os.fspath(self._root)
        levels = [_Level("", (), root, iter(_entries(root)), 0)]
        while levels:
            level = levels[-1]
            below = self._next_folder(level, levels)
            yield from self._images
            self._before += len(self._images)
            self._images.clear()
            if below is not None:
                levels.append(below)
                continue
            levels.pop()
            if level.folders and self._before == level.before:
                self._empty.append(level.folders)

    def _next_folder(self, level: _Level, above: list[_Level]) -> _Level | None:
        """Take the files of a folder up to the next folder in it; None at its end."""
        images, text, folders = self._images, level.text, level.folders
        for entry in level.entries:
            name = entry.name
            if entry.is_file(follow_symlinks=False):
                if is_image(name):
                    image_id = id_of(text + (name if name.isascii() else as_text(name)))
                    images.append(Entry(image_id, FilePlace(entry.path), folders))
                else:
                    self._left.ignore(name)
                continue
            name = as_text(name)
            real = f"{level.real}/{entry.name}"
            if entry.is_symlink():
                target = self._target(entry.path, above)
                if target is None:
                    self._left.links.append(id_of(text + name))
                    continue
                real = target
            if entry.is_dir():
                inner = iter(self._entries(entry.path, text + name))
                before = self._before + len(images)
                return _Level(f"{text}{name}/", (*folders, name), real, inner, before)
            if not is_image(name):
                self._left.ignore(name)
            elif entry.is_file():
                images.append(Entry(id_of(text + name), FilePlace(entry.path), folders))
            else:
                self._left.strange.append(id_of(text + name))  # reading a pipe would never end
        return None

    def _entries(self, folder: str, text: str) -> list["os.DirEntry[str]"]:
        """List a folder below the root; one that cannot be read has nothing, if that is allowed."""
        try:
            return _entries(folder)
        except SourceError:
            if not self._lenient:
                raise
            self._left.unreadable.append(id_of(text))
            return []

    def _target(self, link: str, above: list[_Level]) -> str | None:
        """Return where a link leads; None if it leads out of the root, or to a folder above it."""
        try:
            target = os.path.realpath(link, strict=True)
        except (OSError, RuntimeError):  # dangling, or a circle of links
            return None
        inside = Path(target).is_relative_to(self._root)
        return target if inside and all(target != level.real for level in above) else None


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not is_hidden(e.name)), key=lambda e: e.name)
    except OSError as error:
        raise SourceError(
            f"Folder {folder} could not be read ({error.strerror}); check its permissions."
        ) from error
