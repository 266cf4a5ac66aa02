"""Listing kind `mat`: numbers of images by split, and their labels, in MATLAB files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from featcache.errors import SourceError
from featcache.sources.layouts.named.base import Listed, Location, checked_label, listed
from featcache.sources.layouts.named.mat_file import read_whole_numbers
from featcache.sources.lists import ClassTable

_WHOLE = "Get a whole copy."


@dataclass(frozen=True, slots=True, kw_only=True)
class Mat:
    """Images that are numbered from 1, as in the splits of Oxford Flowers; their order is kept."""

    kind: Literal["mat"]
    file: str
    """File with one array of image numbers for each split."""
    splits: Mapping[str, str]
    """Split -> its array."""
    label_file: str
    """File with the labels of all images, in the order of their numbers."""
    labels: str
    """Its array."""
    path: str
    """Path of an image below the image folder, `{}` for its number."""
    digits: int = 1
    """How many digits the number has there, with leading zeros."""
    label_base: int = 1
    """Number of the first class."""

    @property
    def files(self) -> tuple[str, ...]:
        """Both files."""
        return (self.file, self.label_file)

    def is_here(self, location: Location, classes: ClassTable) -> bool:
        """Tell whether both files are there."""
        return all(location.has_list(file) for file in self.files)

    def read(self, location: Location, classes: ClassTable) -> Listed:
        """List the images in the order of the arrays.

        Raises:
            SourceError: If a file is damaged, an image has no label, or is in two splits.
        """
        return listed(self._images(location, classes), location.by_id)

    def _images(self, location: Location, classes: ClassTable) -> Iterator[tuple[str, int, str]]:
        labels = _array(location, self.label_file, self.labels)
        split_of: dict[int, str] = {}
        for split, name in self.splits.items():
            for number in map(int, _array(location, self.file, name)):
                where = f"{self.file}, {name}: image {number}"
                if not 1 <= number <= len(labels):
                    raise SourceError(
                        f"{where} has no label; {self.label_file} has those of 1 to {len(labels)}. "
                        f"{_WHOLE}"
                    )
                if number in split_of:
                    raise SourceError(f"{where} stands in {split_of[number]} before. {_WHOLE}")
                split_of[number] = name
                label = checked_label(
                    str(labels[number - 1]),
                    self.label_base,
                    len(classes),
                    f"{self.label_file}, image {number}",
                )
                yield self.path.replace("{}", str(number).zfill(self.digits)), label, split


def _array(location: Location, file: str, name: str) -> Int64[np.ndarray, " _"]:
    arrays = read_whole_numbers(location.read_list(file), file)
    if name not in arrays:
        have = ", ".join(list(arrays)[:8]) or "none"
        raise SourceError(
            f"{file} has no array of whole numbers '{name}'; it has: {have}. {_WHOLE}"
        )
    return arrays[name]
