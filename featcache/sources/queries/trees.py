"""Queries of folders and archives, with or without class folders.

The label of an image is the folder that it lies in, as class folders are read elsewhere: the first
one below the root, or the second where the first is called like a split.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from featcache.errors import SourceError
from featcache.paths import expand
from featcache.sources.layouts.split_names import SPLIT_NAMES
from featcache.sources.prefixes.archives import single_top
from featcache.sources.prefixes.folder import existing_folder
from featcache.sources.queries.image import Queries, QueryImage
from featcache.sources.trees.archive import open_archive
from featcache.sources.trees.base import Entry
from featcache.sources.trees.folder import FolderTree
from featcache.sources.trees.names import LeftOut, id_of
from featcache.text.templates import clean_name


def in_folder(text: str) -> Queries:
    """Open a folder; images are found while they are gone through.

    Args:
        text: The folder, as the user wrote it.

    Raises:
        SourceError: If there is no such folder, it cannot be read, or has no image in it.
    """
    root = existing_folder(Path(text))
    left = LeftOut()
    entries = FolderTree(root).walk(left)

    def notes() -> list[str]:
        return list(left.notes(text.rstrip("/") or "/"))

    first = next(entries, None)
    if first is None:
        raise _empty(text, notes())
    return Queries(images=_images(text, chain([first], entries)), notes=notes)


def in_archive(text: str, kind: str) -> Queries:
    """Open a zip or tar archive, or a folder in one.

    Args:
        text: The archive, as the user wrote it.
        kind: zip or tar.

    Raises:
        SourceError: If it is no such archive, holds what is refused, or has no image in it.
    """
    found = open_archive(expand(text), kind).images()
    if not found.images:
        raise _empty(text, found.notes)
    top = single_top(found)
    depth = top.count("/") + 1 if top else 0
    return Queries(
        images=_images(text, found.images, depth),
        count=len(found.images),
        notes=lambda: list(found.notes),
    )


def _images(text: str, entries: Iterable[Entry], depth: int = 0) -> Iterator[QueryImage]:
    """Yield the images below a root, whose folders of classes are so deep."""
    above = id_of(text.rstrip("/"))
    for entry in entries:
        yield QueryImage(f"{above}/{entry.id}", entry.place, _label(entry.folders[depth:]))


def _label(folders: tuple[str, ...]) -> str | None:
    if folders and folders[0].lower() in SPLIT_NAMES:
        folders = folders[1:]
    return clean_name(folders[0]) if folders else None


def _empty(text: str, notes: Iterable[str]) -> SourceError:
    said = "".join(f" {note}" for note in notes)
    return SourceError(
        f"{text} has no images in it; expected files such as photo.jpg or photo.png.{said}"
    )
