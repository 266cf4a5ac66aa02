"""Files that a list names by path; paths that lead out of the root are refused."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from featcache.errors import SourceError
from featcache.paths import as_text
from featcache.places import Place
from featcache.sources.trees.base import Tree
from featcache.wording import Part

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def path_below(text: str, root: Path, where: str, *advice: Part) -> str:
    r"""Return a written path relative to a root, with `/`.

    Args:
        text: As the list has it. Absolute paths count if they lie below the root; backslashes are
            separators where there is no other.
        root: What it is relative to.
        where: Place of the text, to be named in the error: "line 3 of photos.csv".
        advice: What the reader can do if it leads out of the root.

    Raises:
        SourceError: If it leads out of the root, is an address, or is empty.

    Example:
        >>> path_below("./cats/1.jpg", Path("/photos"), "line 2"), path_below(
        ...     "cats\\1.jpg", Path("/photos"), "line 2"
        ... )
        ('cats/1.jpg', 'cats/1.jpg')
    """
    if _ADDRESS.match(text):
        raise SourceError(
            f"{where} names the address {text[:200]}; expected a file on this machine."
        )
    plain = text.replace("\\", "/") if "/" not in text or _DRIVE.match(text) else text
    path = PurePosixPath(plain)
    above = PurePosixPath(as_text(root))
    if path.is_absolute() and path.is_relative_to(above):
        path = path.relative_to(above)
    if path.is_absolute() or _DRIVE.match(plain) or ".." in path.parts:
        raise SourceError(f"{where} names {text[:200]}, which is outside {root}.", *advice)
    if not path.parts or "\0" in text:
        raise SourceError(f"{where} names no file; expected a path below {root}.", *advice)
    return str(path)


@dataclass(slots=True)
class Finder:
    """Find listed files in a tree and remember which are missing."""

    tree: Tree
    where: str
    """The list, for notes: photos.csv."""
    missing: list[str] = field(default_factory=list)
    """The first few."""
    count: int = 0
    """How many are missing."""
    found: int = 0

    def find(self, path: str) -> Place | None:
        """Return the file at a path below the root; None, and counted, if it is missing."""
        place = self.tree.find(path)
        if place is not None:
            self.found += 1
            return place
        self.count += 1
        if len(self.missing) < 3:
            self.missing.append(path)
        return None

    def notes(self, *advice: Part) -> list[str]:
        """Return notes on missing images.

        Args:
            advice: End of the error: what the reader can do if nothing is there.

        Raises:
            SourceError: If nothing is there at all.
        """
        if self.count and not self.found:
            raise SourceError(
                f"None of the {self.count} images that {self.where} lists is in {self.tree.root}; "
                f"expected e.g. {self.missing[0]}.",
                *advice,
            )
        if not self.count:
            return []
        return [
            f"{self.count} images that {self.where} lists are not there and were left out; the "
            f"first is {self.missing[0]}."
        ]
