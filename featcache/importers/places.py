"""Find files in an untrusted folder, without leaving it."""

from collections.abc import Iterable
from pathlib import Path

from featcache.errors import ImportedFileError
from featcache.limits import ARRAYS


def check_folder(folder: Path, what: str) -> Path:
    """Return a folder that is there.

    Args:
        folder: What the user named.
        what: What it should hold, for the message.

    Raises:
        ImportedFileError: If it is a file or missing.
    """
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "is not there"
        raise ImportedFileError(f"{folder} {kind}. Give the folder that holds {what}.")
    return folder


def inside(folder: Path, name: str) -> Path | None:
    """Return the file of a folder; None if there is none of this name.

    Args:
        folder: A folder that a stranger may have filled.
        name: Name of the file, or its path below the folder.

    Raises:
        ImportedFileError: If it is a link that leads out of the folder.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ImportedFileError(
            f"{path} is a link that leads out of its folder, and is not followed. Copy the file "
            f"itself into {folder}."
        )
    return path


def check_total(folder: Path, files: Iterable[Path]) -> None:
    """Refuse files that are together larger than what is read at once.

    Raises:
        ImportedFileError: If they are, or one of them cannot be looked at.
    """
    try:
        total = sum(path.stat().st_size for path in files)
    except OSError as error:
        raise ImportedFileError(
            f"{error.filename} cannot be read ({error.strerror}). Check the file."
        ) from error
    if total > ARRAYS.value():
        raise ImportedFileError(
            f"The features in {folder} take {total} bytes together; up to {ARRAYS.value()} are "
            f"read. Import a part of them, or raise {ARRAYS.variable}."
        )
