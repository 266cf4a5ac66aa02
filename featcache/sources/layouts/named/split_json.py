"""Listing kind `split-json`: CoOp's split files, from the package or from beside the images."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from featcache.errors import SourceError
from featcache.sources.layouts.named.base import Listed, ListedImage, Location
from featcache.sources.layouts.named.coop import CoopSplit, parse_split
from featcache.sources.lists import ClassTable, packaged_split
from featcache.sources.trees.base import Entry
from featcache.text.templates import clean_name

Splits = Mapping[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitJson:
    """CoOp's split file; the order of its images is kept, since few-shot draws depend on it."""

    kind: Literal["split-json"]
    file: str
    """CoOp's name of it, looked for beside the images."""
    packaged: str = ""
    """Name of the copy in the package; empty where the file beside the images is needed."""
    sha256: str = ""
    """Digest of CoOp's file."""
    merge: Mapping[str, str] = field(default_factory=dict)
    """Split of the file -> split that its images belong to, as where CoOp cut val from the official
    train."""

    @property
    def files(self) -> tuple[str, ...]:
        """The split file, unless it is packaged."""
        return () if self.packaged else (self.file,)

    def is_here(self, location: Location, classes: ClassTable) -> bool:
        """Tell whether a folder, or else an image, of the list is there."""
        if not self.packaged and not location.has_list(self.file):
            return False
        paths = [path for entries in self._splits(location).values() for path, _ in entries]
        folders = {path.rpartition("/")[0] for path in paths}
        if "" in folders:
            return not set(paths).isdisjoint(location.images.names())
        return any(location.images.has_folder(folder) for folder in sorted(folders))

    def read(self, location: Location, classes: ClassTable) -> Listed:
        """List the images in the order of the file.

        Raises:
            SourceError: If the file is damaged or is another data set's.
        """
        notes = (*self._names_notes(location, classes), *self._other_file(location))
        samples, missing = [], []
        for split, entries in self._splits(location).items():
            for path, label in entries:
                entry = _find(location, path)
                if entry is None:
                    missing.append(path)
                else:
                    samples.append(ListedImage(entry, label, self.merge.get(split, split)))
        return Listed(tuple(samples), tuple(missing), notes)

    def _splits(self, location: Location) -> Splits:
        if self.packaged:
            return packaged_split(self.packaged)
        return _parsed(location.read_list(self.file), self.file).splits

    def _names_notes(self, location: Location, classes: ClassTable) -> Iterator[str]:
        """Check that the classes of the file are those of the data set."""
        if self.packaged:
            return
        names = _parsed(location.read_list(self.file), self.file).classes
        ours = tuple(map(clean_name, classes.names))
        if names != ours:
            i = next((i for i, (a, b) in enumerate(zip(names, ours, strict=False)) if a != b), -1)
            got = f"class {i} is '{names[i]}'" if i >= 0 else f"it has {len(names)} classes"
            wanted = f"'{ours[i]}'" if i >= 0 else str(len(ours))
            raise SourceError(
                f"{self.file} is the split file of another data set: {got}, expected {wanted}."
            )
        yield f"Splits are those of {self.file}."

    def _other_file(self, location: Location) -> Iterator[str]:
        """Report a file with CoOp's name and other splits beside the images."""
        if not self.sha256 or not location.has_list(self.file):
            return
        data = location.read_list(self.file)
        if hashlib.sha256(data).hexdigest() == self.sha256:
            return
        if not self.packaged:
            yield (
                f"The {self.file} beside the images is not CoOp's, byte for byte: draws of shots "
                f"may differ from those published."
            )
        elif _parsed(data, self.file).splits != packaged_split(self.packaged):
            yield (
                f"The {self.file} beside the images is not CoOp's, whose splits were used; for "
                f"splits of your own put the images into train, val and test folders."
            )


@lru_cache(maxsize=1)
def _parsed(data: bytes, file: str) -> CoopSplit:
    return parse_split(data, file)


def _find(location: Location, path: str) -> Entry | None:
    """Find an image, also where the archive of a mirror repeats its top folder."""
    top, slash, _ = path.partition("/")
    return location.by_id.get(path) or location.by_id.get(f"{top}{slash}{path}" if slash else path)
