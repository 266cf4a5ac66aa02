"""Interface of the kinds of lists of named data sets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

from featcache.errors import SourceError
from featcache.limits import WORDS
from featcache.sources.lists import ClassTable
from featcache.sources.trees.base import Entry, FoundImages, Tree


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of a list that was found."""

    entry: Entry
    label: int
    split: str
    group: str = ""
    """Patient, lesion or track; splits that are made here never divide one. Empty for none."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Images of one list that were found, and the missing ones."""

    samples: tuple[ListedImage, ...]
    """In the order of the list; of class folders by split, label and id."""
    missing: tuple[str, ...] = ()
    """Images that are listed and not there, by path."""
    notes: tuple[str, ...] = ()


def listed(images: Iterable[tuple[str, int, str]], entries: Mapping[str, Entry]) -> Listed:
    """Look up the images of a list.

    Args:
        images: Path, label and split of each.
        entries: What is there, by path.
    """
    samples, missing = [], []
    for path, label, split in images:
        entry = entries.get(path)
        if entry is None:
            missing.append(path)
        else:
            samples.append(ListedImage(entry, label, split))
    return Listed(tuple(samples), tuple(missing))


class Location:
    """Possible location of a data set: a tree of images, and trees that may hold its lists."""

    def __init__(self, images: Tree, lists: Sequence[Tree]) -> None:
        """Store the trees; nothing is read yet.

        Args:
            images: Ids are relative to its root.
            lists: Lists are looked for in these, in order: by their path, then by base name.
        """
        self.images = images
        self._lists = tuple(lists)

    @cached_property
    def found(self) -> FoundImages:
        """Every image below the image folder."""
        return self.images.images()

    @cached_property
    def by_id(self) -> Mapping[str, Entry]:
        """Id -> image."""
        return {entry.id: entry for entry in self.found.images}

    @cached_property
    def by_name(self) -> Mapping[str, Entry]:
        """Base name -> image; of equal names the first.

        Raises:
            SourceError: If two images have one name.
        """
        names: dict[str, Entry] = {}
        for entry in self.found.images:
            other = names.setdefault(entry.id.rpartition("/")[2], entry)
            if other is not entry:
                raise SourceError(
                    f"Images are listed by name, and {other.id} and {entry.id} in "
                    f"{self.images.root} have one name; keep one of them."
                )
        return names

    def has_list(self, path: str) -> bool:
        """Tell whether a list is there."""
        return self._place(path) is not None

    def read_list(self, path: str) -> bytes:
        """Read a list beside the images.

        Raises:
            SourceError: If it is not there or cannot be read.
        """
        there = self._place(path)
        if there is None:
            raise SourceError(f"{path} is not in {self.images.root} nor beside it.")
        tree, name = there
        return tree.read(name, WORDS)

    def read_text(self, path: str) -> str:
        """Read a list of text in UTF-8, a byte order mark left out.

        Raises:
            SourceError: As `read_list`, or if it is no UTF-8.
        """
        try:
            return self.read_list(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is no text in UTF-8 ({error}); get a whole copy.") from error

    def _place(self, path: str) -> tuple[Tree, str] | None:
        names = dict.fromkeys((path, path.rpartition("/")[2]))
        return next(((t, n) for t in self._lists for n in names if t.find(n) is not None), None)


@runtime_checkable
class Layout(Protocol):
    """One `[[splits.NAME.list]]` of a data set's file: a kind of list and its parameters."""

    def is_here(self, location: Location, classes: ClassTable) -> bool:
        """Tell, without reading all of it, whether the data set is here in this layout."""
        ...

    def read(self, location: Location, classes: ClassTable) -> Listed:
        """List the images.

        Raises:
            SourceError: If the list is damaged or belongs to other images.
        """
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of lists that must be beside the images."""
        ...


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Return name -> position."""
    return {name: i for i, name in enumerate(names)}


def checked_label(text: str, base: int, classes: int, where: str) -> int:
    """Parse and check a label that is a number.

    Args:
        text: Number as written in the list.
        base: Number of the first class.
        classes: Number of classes.
        where: List and line, for messages.

    Raises:
        SourceError: If it is no number, or that of no class.
    """
    number = text.strip()
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise SourceError(f"{where}: expected the number of a class, got '{text[:40]}'.")
    label = int(number) - base
    if not 0 <= label < classes:
        raise SourceError(
            f"{where}: {number} is no class; they are numbered {base} to {base + classes - 1}."
        )
    return label
