"""Listing kind `folders`: the class of an image is the folder it lies in, or begins its name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from featcache.sources.layouts.named.base import Listed, ListedImage, Location, numbered
from featcache.sources.lists import ClassTable
from featcache.sources.trees.base import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Class folders below a folder for each split."""

    kind: Literal["folders"]
    splits: Mapping[str, str]
    """Split -> folder below the image folder; empty for the image folder itself."""
    numbers: bool = False
    """Whether the folders are named by label, 0 and up, in place of the class list's folders."""
    class_in_name: bool = False
    """Whether the images lie flat, the class before the last underscore of their names."""
    group: str = ""
    """Images whose ids are equal up to the last of this text are of one group."""

    @property
    def files(self) -> tuple[str, ...]:
        """Empty: no list is needed."""
        return ()

    def is_here(self, location: Location, classes: ClassTable) -> bool:
        """Tell whether a class folder, or else a file named by a class, is there."""
        label_of = self._labels(classes)
        if self.class_in_name:
            names = [n for top in self.splits.values() for n in _names(location, top)]
            return any(_class_of(name) in label_of for name in names)
        folders = (_join(top, name) for top in self.splits.values() for name in label_of)
        return any(location.images.has_folder(folder) for folder in folders)

    def read(self, location: Location, classes: ClassTable) -> Listed:
        """List the images by split, label and id."""
        label_of = self._labels(classes)
        samples: list[ListedImage] = []
        for split, top in self.splits.items():
            above = tuple(top.split("/")) if top else ()
            labelled = []
            for entry in location.found.images:
                if entry.folders[: len(above)] != above:
                    continue
                label = label_of.get(self._class(entry, entry.folders[len(above) :]))
                if label is not None:
                    labelled.append(ListedImage(entry, label, split, self._group(entry)))
            samples += sorted(labelled, key=lambda image: (image.label, image.entry.id))
        return Listed(tuple(samples))

    def _labels(self, classes: ClassTable) -> dict[str, int]:
        return numbered(map(str, range(len(classes))) if self.numbers else classes.folders)

    def _class(self, entry: Entry, folders: tuple[str, ...]) -> str:
        if not self.class_in_name:
            return "/".join(folders)
        return "" if folders else _class_of(entry.id)

    def _group(self, entry: Entry) -> str:
        return entry.id.rpartition(self.group)[0] if self.group else ""


def _names(location: Location, folder: str) -> Iterator[str]:
    if not folder or location.images.has_folder(folder):
        yield from location.images.names(folder)


def _class_of(name: str) -> str:
    return name.rpartition("/")[2].rpartition("_")[0]


def _join(top: str, name: str) -> str:
    return f"{top}/{name}" if top else name
