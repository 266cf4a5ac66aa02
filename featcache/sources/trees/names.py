"""Names of files below a root: which are images, which are hidden, and the ids made of them."""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from featcache.counts import counted
from featcache.paths import as_text

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Suffixes of images, in any case; files of other names are ignored."""

_EXPECTED_BESIDE = ("", ".txt", ".md", ".json", ".csv", ".tsv", ".db", ".ini", ".xml", ".html")
"""Suffixes of files that are often beside images and are left out without a note."""

_ESCAPE = re.compile(r"\\\\|\\[nrt]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}")
"""What a backslash may begin in an id; any other stands for itself."""
_SHORT = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def is_image(name: str) -> bool:
    """Tell whether a file has the name of an image."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Tell whether a file manager hides the name or an archiver left it."""
    return name.startswith(".") or name == "__MACOSX"


def is_below(path: str) -> bool:
    """Tell whether an untrusted path stays below its root."""
    return bool(path) and path[0] != "/" and ".." not in path.split("/") and "\0" not in path


def as_id(path: Path, root: Path) -> str:
    """Return the id of a file below a root."""
    return id_of(as_text(path.relative_to(root).as_posix()))


def id_of(text: str) -> str:
    r"""Return a path below the root, with `/`, on one line whatever the name holds.

    What does not print is escaped as Python does it, so that `path_text` leads back to the file.
    Backslashes are doubled only in names that would not read back otherwise: those of Windows
    archives (`a\b.jpg`) keep the ids that earlier versions gave them.

    Example:
        >>> id_of("cat/1.jpg"), id_of("line" + chr(10) + "break.jpg")
        ('cat/1.jpg', 'line\\nbreak.jpg')
    """
    if "\\" not in text and text.isprintable():
        return text
    plain = escaped(text)
    return plain if path_text(plain) == text else escaped(text.replace("\\", "\\\\"))


def path_text(image_id: str) -> str:
    """Return the path below the root of an id, as text."""
    return _ESCAPE.sub(_unescaped, image_id) if "\\" in image_id else image_id


def earlier_id(image_id: str) -> str:
    """Return the id that versions before this one gave to the same file; others may share it."""
    return escaped(path_text(image_id)) if "\\" in image_id else image_id


def escaped(text: str) -> str:
    """Return a text with what does not print escaped; two texts may give the same."""
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
class LeftOut:
    """Counts of files beside the images that are left out."""

    links: list[str] = field(default_factory=list)
    """Ids of links that were not followed."""
    strange: list[str] = field(default_factory=list)
    """Ids of pipes and devices with the name of an image."""
    unreadable: list[str] = field(default_factory=list)
    """Ids of folders that could not be read."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Suffix -> files that are no images."""

    def ignore(self, name: str) -> None:
        """Count a file that is no image by its suffix."""
        stem, dot, suffix = name.rpartition(".")
        self.ignored[f".{suffix.lower()}" if dot and stem.strip(".") and suffix else ""] += 1

    def notes(self, root: str) -> Iterator[str]:
        """Return one sentence for each kind of file.

        Args:
            root: Name of the folder.
        """
        if self.links:
            links = counted(len(self.links), "link leads", "links lead")
            yield (
                f"{links} out of {root}/, or in circles, "
                f"{'and was' if len(self.links) == 1 else 'and were'} not followed; "
                f"the first is {self.links[0]}."
            )
        if self.strange:
            yield (
                f"{len(self.strange)} entries with the name of an image are no files (pipes or "
                f"devices) and were left out; the first is {self.strange[0]}."
            )
        if self.unreadable:
            yield (
                f"{len(self.unreadable)} folders in {root}/ cannot be read and were left out; the "
                f"first is {self.unreadable[0]}."
            )
        unusual = sorted(s for s in self.ignored if s not in _EXPECTED_BESIDE)
        if unusual:
            count = sum(self.ignored[s] for s in unusual)
            ignored = counted(
                count, "file was ignored for its suffix", "files were ignored for their suffix"
            )
            yield f"{ignored} ({', '.join(unusual[:6])})."
