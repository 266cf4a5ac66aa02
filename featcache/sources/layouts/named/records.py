"""Listing kind `records`: pixels in binary files, written once as PNG and then read as any image.

A record is `header` bytes, the last of which is the label, then the pixels, plane after plane. The
PNG files are lossless, and they appear in one step: a folder that is there is whole.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from featcache.errors import SourceError
from featcache.sources.base import Report
from featcache.sources.fetch.aside import aside, clear_aside
from featcache.sources.layouts.named.base import Listed, Location
from featcache.sources.layouts.named.folders import Folders
from featcache.sources.lists import ClassTable

_REPORT_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Binary files of records, as CIFAR's."""

    kind: Literal["records"]
    records: Mapping[str, tuple[str, ...]]
    """Split -> files, in order."""
    header: int
    """Bytes before the pixels of a record."""
    side: int
    """Pixels a side; three planes, red, green and blue."""
    folder: str
    """Folder below the data root that the PNG files are written to."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files of records."""
        return tuple(file for files in self.records.values() for file in files)

    def is_here(self, location: Location, classes: ClassTable) -> bool:
        """Tell whether the files of records are there."""
        return all(location.has_list(file) for file in self.files)

    def read(self, location: Location, classes: ClassTable) -> Listed:
        """List the PNG files; `location` is the folder that `write` returned."""
        splits = {split: split for split in self.records}
        return Folders(kind="folders", splits=splits).read(location, classes)

    def write(
        self, location: Location, classes: ClassTable, data_root: Path, report: Report | None = None
    ) -> Path:
        """Write the images as PNG files, unless that was done before.

        Args:
            location: Where the records lie.
            classes: Names the class folders.
            data_root: Holds the folder that is written.
            report: Told how many images are written.

        Returns:
            The folder of split folders of class folders.

        Raises:
            SourceError: If a file is no whole number of records, has a label of no class, or the
                folder cannot be written.
        """
        target = data_root / self.folder
        if target.is_dir():
            return target
        try:
            data_root.mkdir(parents=True, exist_ok=True)
            clear_aside(self.folder, data_root)
            with aside(self.folder, data_root) as folder:
                for split, files in self.records.items():
                    self._write_split(location, classes, folder / "images" / split, files, report)
                os.sync()  # or a power cut could leave the folder's name without its images
                (folder / "images").rename(target)
        except OSError as error:
            if not target.is_dir():  # another process may have been first
                raise SourceError(
                    f"The images of {location.images.root} could not be written to {target} "
                    f"({error.strerror})."
                ) from error
        return target

    def _write_split(
        self,
        location: Location,
        classes: ClassTable,
        folder: Path,
        files: tuple[str, ...],
        report: Report | None,
    ) -> None:
        from PIL import Image

        plane = self.side * self.side
        size = self.header + 3 * plane
        for name in classes.folders:
            (folder / name).mkdir(parents=True)
        number = 0
        for file in files:
            data = memoryview(location.read_list(file))
            if not data or len(data) % size:
                raise SourceError(
                    f"{file} has {len(data)} bytes, which is no whole number of records of {size}; "
                    f"get a whole copy."
                )
            for start in range(0, len(data), size):
                label = data[start + self.header - 1]
                if label >= len(classes):
                    raise SourceError(
                        f"{file}, record {start // size}: {label} is no class; they are numbered "
                        f"0 to {len(classes) - 1}."
                    )
                first = start + self.header
                bands = [
                    Image.frombytes("L", (self.side, self.side), bytes(data[i : i + plane]))
                    for i in range(first, first + 3 * plane, plane)
                ]
                name = f"{number:05d}.png"
                Image.merge("RGB", bands).save(folder / classes.folders[label] / name)
                number += 1
                if report and number % _REPORT_EVERY == 0:
                    report(f"writing {file} as images", number, 0)
