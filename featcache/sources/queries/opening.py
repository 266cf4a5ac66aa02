"""From what a user names to images: files, folders, tables, archives, and sources by prefix.

photo.jpg              a file
new/                   a folder of images, with or without class folders
new.csv, photos.zip    a table, an archive
wds:shards/, hf:...    any source by its prefix (featcache.sources.kinds)
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from featcache.errors import SourceError, UnknownNameError, UsageError
from featcache.paths import as_text, expand
from featcache.places import FilePlace
from featcache.progress import Report
from featcache.sources.kinds import KINDS
from featcache.sources.queries.image import Queries, QueryImage
from featcache.sources.trees.names import id_of
from featcache.wording import Argument, Call, Part, Setting

LONGEST_LINE = 1 << 16
"""Most bytes of a line that holds a path; no file system has paths as long."""

SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))
"""A path that ends with one means a folder, there or not."""
TREES = ("folder", "zip", "tar")
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".zip": "zip", ".tar": "tar"}
"""Suffix of a file -> prefix of the source that it is, without which it would be no image."""


def open_queries(
    text: str,
    root: Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    report: Report | None = None,
) -> Queries:
    """Open what a user names.

    Args:
        text: A path, or a prefix and a path.
        root: Folder of all caches, which keeps images that have to be downloaded.
        columns: path, label -> name of the column of a table that holds it.
        split: Only images of this split, of a source that has splits.
        report: Called with progress of downloading.

    Raises:
        SourceError: If the source cannot be listed, or has no image.
        UsageError: If there is no such kind of source, or it has no columns or splits.
    """
    prefix, path = _prefixed(text)
    if columns and prefix != "csv":
        named = ", ".join(map(repr, columns.values()))
        raise UsageError(f"{text} is no table, so it has no column {named}; name a csv file.")
    if split is not None and prefix in (*TREES, ""):
        raise UsageError(
            f"{text} has no splits; leave ", Argument("split"), " out and name the folder itself."
        )
    try:
        match prefix:
            case "":
                return of_files([text])
            case "folder":
                from featcache.sources.queries.trees import in_folder

                if not expand(path).exists():
                    raise SourceError(
                        f"There is no folder {path}; name one with images in it, a table, an "
                        f"archive, or image files."
                    )
                return in_folder(path)
            case "zip" | "tar":
                from featcache.sources.queries.trees import in_archive

                return in_archive(path, prefix)
            case "csv" if not expand(path).is_dir():
                from featcache.sources.queries.tables import in_table

                return in_table(path, columns or {}, split)
            case _:
                return _of_dataset(f"{prefix}:{path}", root, split, report)
    except SourceError as error:
        raise SourceError(*map(_as_path, error.parts)) from error


def is_source(text: str) -> bool:
    """Tell whether a text names more than one image file: a folder, a table, a prefix."""
    return _prefixed(text)[0] != ""


def of_files(paths: Iterable[str]) -> Queries:
    """Take paths of image files as they are; what is no file is found out when it is read."""
    count = len(paths) if isinstance(paths, list | tuple) else None
    return Queries(images=map(_file, paths), count=count)


def of_lines(lines: Iterable[bytes]) -> Queries:
    """Take the path of a file from every line; empty ones are skipped.

    Args:
        lines: The lines, as a stream opened for bytes has them, at most `LONGEST_LINE` each.
    """
    return Queries(images=_from_lines(lines))


def _from_lines(lines: Iterable[bytes]) -> Iterator[QueryImage]:
    is_rest = False  # of a line that is too long
    for number, line in enumerate(lines, start=1):
        was_rest, is_rest = is_rest, not line.endswith(b"\n") and len(line) >= LONGEST_LINE
        if was_rest:
            continue
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        if is_rest or "\0" in text:
            why = "a NUL byte" if "\0" in text else f"more than {LONGEST_LINE} bytes"
            yield QueryImage(f"line {number}", None, None, f"is no path: it has {why}")
        elif text:
            yield _file(text)


def _file(text: str) -> QueryImage:
    try:
        return QueryImage(id_of(as_text(text)), FilePlace(expand(text)))
    except UsageError as error:  # the home folder of somebody unknown
        return QueryImage(id_of(as_text(text)), None, None, f"cannot be read: {error}")


def _prefixed(text: str) -> tuple[str, str]:
    """Return prefix and path of a source; an empty prefix for the path of a file.

    Raises:
        UnknownNameError: If there is no such kind of source, and no such file.
    """
    prefix, colon, path = text.partition(":")
    if colon and prefix in KINDS:
        if not path:
            raise UsageError(f"{text} names no path; write e.g. folder:photos/.")
        return prefix, path
    try:
        place = expand(text)
        if place.is_dir() or text.endswith(SEPARATORS):
            return "folder", text
        kind = SUFFIXES.get(place.suffix.lower(), "")
        if kind:
            return kind, text
        bare = text.rpartition("?")[0]
        if bare and Path(bare).suffix.lower() in (".csv", ".tsv") and not place.exists():
            return "csv", text
        if colon and prefix.isalpha() and not place.exists() and "/" not in prefix:
            raise UnknownNameError("kind of source", prefix, KINDS, "Or name a file or a folder.")
    except (OSError, ValueError):  # too long, or with a NUL byte: its image says so
        pass
    return "", text


def _of_dataset(spec: str, root: Path, split: str | None, report: Report | None) -> Queries:
    """Take the images of a source that lists them with labels."""
    from featcache.sources.registry import open_dataset

    data = open_dataset(spec, root=root, report=report)
    if split is not None and split not in data.splits():
        raise UnknownNameError("split", split, data.splits())
    samples = [s for s in data.samples if split in (None, s.split)]
    images = (
        QueryImage(s.id, s.place, None if s.label < 0 else data.classes[s.label]) for s in samples
    )
    return Queries(images=images, count=len(samples))


def _as_path(part: Part) -> Part:
    """Write the `dataset` argument of a message as the path that it is here."""
    if isinstance(part, Argument) and part.name == "dataset" and part.value is not None:
        return str(part.value)
    if isinstance(part, str | Argument | Setting | Call):
        return part
    return tuple(map(_as_path, part))
