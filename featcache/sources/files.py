"""Image files below a folder: which names count, and what is never followed."""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import SourceError
from featcache.paths import as_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of images, in any case; files of other names are ignored."""

_EXPECTED_BESIDE = ("", ".txt", ".md", ".json", ".csv", ".tsv", ".db", ".ini", ".xml", ".html")
"""Suffixes of files that lie beside images so often that nobody wants to hear of them."""


_ESCAPE = re.compile(r"\\\\|\\[nrt]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}")
"""What a backslash may begin in an id; any other stands for itself."""
_SHORT = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file that was found."""

    id: str
    """Path below the root as `as_id` writes it: on one line, and of no other file."""
    path: Path
    folders: tuple[str, ...]
    """The folders between the root and the file."""


@dataclass(frozen=True, slots=True)
class FoundImages:
    """All images below one root, in the order of their names."""

    images: tuple[ImageFile, ...]
    notes: tuple[str, ...]
    """What was left out, a sentence each."""
    empty: tuple[tuple[str, ...], ...] = ()
    """Folders with no image in or below them."""


def find_images(root: Path) -> FoundImages:
    """Find every image below a resolved folder.

    Hidden files are left out, and so are links that leave the root or lead in circles, and what is
    no plain file.

    Raises:
        SourceError: If a folder cannot be read.
    """
    walk = _Walk(root)
    images = tuple(walk.images(root, (root,)))
    return FoundImages(images, tuple(walk.notes()), tuple(walk.empty))


def as_id(path: Path, root: Path) -> str:
    r"""Return the path below the root with `/`, on one line whatever the name holds.

    What does not print is escaped as Python does it, so that `path_text` leads back to the file.
    Backslashes are doubled only in names that would not read back otherwise: those of Windows
    archives (`a\b.jpg`) keep the ids that earlier versions gave them.
    """
    text = as_text(path.relative_to(root).as_posix())
    plain = _escaped(text)
    return plain if path_text(plain) == text else _escaped(text.replace("\\", "\\\\"))


def path_text(image_id: str) -> str:
    """Return the path below the root that an id stands for, as text."""
    return _ESCAPE.sub(_unescaped, image_id)


def earlier_id(image_id: str) -> str:
    """Return the id that versions before this one gave to the same file; others may share it."""
    return _escaped(path_text(image_id))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _unescaped(found: re.Match[str]) -> str:
    code = found[0][1:]
    if code in _SHORT:
        return _SHORT[code]
    number = int(code[1:], 16)
    return chr(number) if number <= sys.maxunicode else found[0]


@dataclass(slots=True)
class _Walk:
    root: Path
    links: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[tuple[str, ...]] = field(default_factory=list)
    _found: int = 0

    def images(self, folder: Path, trail: tuple[Path, ...]) -> Iterator[ImageFile]:
        names = tuple(map(as_text, folder.relative_to(self.root).parts))
        for entry in self._entries(folder):
            path = Path(entry.path)
            if entry.is_symlink() and not self._may_follow(path, trail):
                self.links.append(as_id(path, self.root))
            elif entry.is_dir():
                before = self._found
                yield from self.images(path, (*trail, path.resolve()))
                if self._found == before:
                    self.empty.append((*names, as_text(entry.name)))
            elif entry.name.lower().endswith(SUFFIXES) and not entry.is_file():
                self.strange.append(as_id(path, self.root))  # reading a pipe would never end
            elif entry.name.lower().endswith(SUFFIXES):
                self._found += 1
                yield ImageFile(as_id(path, self.root), path, names)
            else:
                self.ignored[path.suffix.lower()] += 1

    def notes(self) -> Iterator[str]:
        if self.links:
            yield (
                f"{len(self.links)} links lead out of {as_text(self.root.name)}/, or in circles, "
                f"and were not followed; the first is {self.links[0]}."
            )
        if self.strange:
            yield (
                f"{len(self.strange)} entries with the name of an image are no files (pipes or "
                f"devices) and were left out; the first is {self.strange[0]}."
            )
        unusual = sorted(s for s in self.ignored if s not in _EXPECTED_BESIDE)
        if unusual:
            count = sum(self.ignored[s] for s in unusual)
            yield f"{count} files were ignored for their suffix ({', '.join(unusual[:6])})."

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                return sorted((e for e in found if not _is_hidden(e.name)), key=lambda e: e.name)
        except OSError as error:
            raise SourceError(
                f"Folder {folder} could not be read ({error.strerror}); check its permissions."
            ) from error

    def _may_follow(self, link: Path, trail: tuple[Path, ...]) -> bool:
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):  # dangling, or a circle of links
            return False
        return target.is_relative_to(self.root) and not any(above == target for above in trail)


def _is_hidden(name: str) -> bool:
    """Tell whether a file manager hides the name or an archiver left it."""
    return name.startswith(".") or name == "__MACOSX"
