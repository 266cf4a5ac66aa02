"""File of a list, and folder of its images."""

from collections.abc import Mapping
from pathlib import Path

from featcache.errors import SourceError
from featcache.paths import expand


def existing_file(path: str, what: str) -> Path:
    """Return the resolved path of a file.

    Args:
        path: As the reader wrote it.
        what: What it should be, with its article: "a csv file".

    Raises:
        SourceError: If there is no such file.
    """
    file = expand(path)
    try:
        if file.is_file():
            return file.resolve()
        there = "is no regular file" if file.exists() else "is not there"
        problem = "is a folder" if file.is_dir() else there
    except (OSError, ValueError) as error:
        problem = f"cannot be looked at ({error})"
    raise SourceError(f"{file} {problem}; expected {what}.")


def image_root(file: Path, options: Mapping[str, str]) -> Path:
    """Return the folder that a list's paths are relative to: its own, or the option `root`.

    Raises:
        SourceError: If there is no such folder.
    """
    if "root" not in options:
        return file.parent
    root = expand(options["root"])
    if not root.is_dir():
        raise SourceError(f"There is no folder {root}; expected the folder of the images.")
    return root.resolve()
