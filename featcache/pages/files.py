"""Writing a page to a file, all of it or nothing."""

from collections.abc import Callable
from pathlib import Path

from featcache.errors import CacheError, UsageError
from featcache.pages.sheet import Sheet, to_html
from featcache.paths import expand
from featcache.store.format.files import write_atomically
from featcache.wording import Argument

SUFFIXES = (".html", ".png")


def check_sheet_path(path: Path | str) -> Path:
    """Return the path of a sheet that can be written; checked before the work of making it.

    Raises:
        UsageError: If its suffix is not that of a page, its folder does not exist, or it is a
            folder.
    """
    path = expand(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            Argument("sheet"),
            f" takes a file that ends in {' or '.join(SUFFIXES)}, got '{path.name[:80]}'.",
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"The sheet cannot be written to {path}: the folder {path.parent} does not exist. "
            "Make it, or name another file with ",
            Argument("sheet"),
            ".",
        )
    if path.is_dir():
        raise UsageError(
            f"The sheet cannot be written to {path}, which is a folder. Name a file with ",
            Argument("sheet"),
            ".",
        )
    return path


def save_sheet(sheet: Callable[[], Sheet], path: Path | str) -> Path:
    """Write a sheet as HTML or PNG, by the suffix of the file; an existing file is replaced.

    Args:
        sheet: Makes the sheet, after the path was checked.
        path: File that ends in .html or .png.

    Raises:
        UsageError: If the file cannot be written.
    """
    path = check_sheet_path(path)
    if path.suffix.lower() == ".png":
        from featcache.pages.sheet_png import to_png

        data = to_png(sheet())
    else:
        data = to_html(sheet()).encode()
    try:
        write_atomically(path, data)
    except CacheError as error:
        why = getattr(error.__cause__, "strerror", None) or error
        raise UsageError(
            f"The sheet cannot be written to {path} ({why}). Name another file with ",
            Argument("sheet"),
            ".",
        ) from error
    return path
