"""Listing kind `lines`: a text file for each split, one image a line."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from featcache.errors import SourceError
from featcache.sources.layouts.named.base import (
    Listed,
    Location,
    checked_label,
    listed,
    numbered,
)
from featcache.sources.lists import ClassTable

ClassFrom = Literal["label", "name", "folder", "stem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lists of images; their order is kept."""

    kind: Literal["lines"]
    lists: Mapping[str, str]
    """Split -> file, looked for beside the images."""
    pattern: str = "{image}"
    """What a line holds: {image}, {label}, {class} and {} for what is skipped, as words; the last
    takes the rest of the line."""
    path: str = "{image}"
    """Path of an image below the image folder, from {image} and {class}."""
    class_from: ClassFrom = "label"
    """label: the number in the line; name: the name in the line; folder: the folders of {image};
    stem: {image} up to its last underscore."""
    label_base: int = 0
    """Number of the first class."""

    @property
    def files(self) -> tuple[str, ...]:
        """The lists."""
        return tuple(self.lists.values())

    def is_here(self, location: Location, classes: ClassTable) -> bool:
        """Tell whether one of the lists is there."""
        return any(location.has_list(file) for file in self.lists.values())

    def read(self, location: Location, classes: ClassTable) -> Listed:
        """List the images in the order of the files.

        Raises:
            SourceError: If a line is of another form, or names no class.
        """
        return listed(self._images(location, classes), location.by_id)

    def _images(self, location: Location, classes: ClassTable) -> Iterator[tuple[str, int, str]]:
        label_of = numbered(classes.names if self.class_from == "name" else classes.folders)
        for split, file in self.lists.items():
            if not location.has_list(file):
                continue
            for where, image, label_text in self._lines(location, file):
                name = self._class(image, label_text)
                if self.class_from == "label":
                    label = checked_label(name, self.label_base, len(classes), where)
                elif name in label_of:
                    label = label_of[name]
                else:
                    raise SourceError(f"{where}: '{name[:80]}' is none of the classes.")
                path = self.path.replace("{class}", name).replace("{image}", image)
                yield path, label, split

    def _lines(self, location: Location, file: str) -> Iterator[tuple[str, str, str]]:
        """Yield (which line, image, what says its class)."""
        line_form = _regex(self.pattern)
        for number, line in enumerate(location.read_text(file).splitlines(), start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            match = line_form.fullmatch(text)
            if match is None:
                raise SourceError(
                    f"{file}, line {number}: expected '{self.pattern}', got '{text[:80]}'."
                )
            parts = match.groupdict()
            says = parts.get("label") or parts.get("class") or ""
            yield f"{file}, line {number}", parts["image"].lstrip("/"), says

    def _class(self, image: str, says: str) -> str:
        if self.class_from == "folder":
            return image.rpartition("/")[0]
        return image.rpartition("_")[0] if self.class_from == "stem" else says


def _regex(pattern: str) -> re.Pattern[str]:
    """Turn `{image} {label}` into an expression; the last word takes the rest of the line."""
    words = pattern.split(" ")
    parts = []
    for i, word in enumerate(words):
        text = ".+" if i == len(words) - 1 else r"\S+"
        parts.append(text if word == "{}" else f"(?P<{word[1:-1]}>{text})")
    return re.compile(r"\s+".join(parts))
