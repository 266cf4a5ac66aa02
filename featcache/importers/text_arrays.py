"""Class names and paths as NumPy arrays of bounded width."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from featcache.errors import ImportedFileError
from featcache.limits import WORDS
from featcache.paths import read_regular

LONGEST = 4096
"""Most characters of a text. A NumPy array is as wide as its longest text."""


def as_texts(path: Path, values: Sequence[object], what: str) -> Shaped[np.ndarray, " n"]:
    """Return texts as an array.

    Args:
        path: The file that they are from.
        values: The texts.
        what: What they are, for the message: "paths".

    Raises:
        ImportedFileError: If one of them is no text, or longer than any path.
    """
    for row, value in enumerate(values):
        if not isinstance(value, str) or len(value) > LONGEST:
            shown = f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
            raise ImportedFileError(
                f"{path} should hold texts of up to {LONGEST} characters as {what}, got {shown} in "
                f"row {row}. Save them as str."
            )
        if value.endswith("\0"):  # which NumPy would leave out
            raise ImportedFileError(f"{path} has {what} that end in a NUL character (row {row}).")
    return np.array(list(values), dtype=np.str_)


def read_lines(path: Path, what: str) -> Shaped[np.ndarray, " n"]:
    """Read a text file with one text a line.

    Args:
        path: The file.
        what: What they are, for the message.

    Raises:
        ImportedFileError: If it cannot be read or is no text.
    """
    try:
        lines = read_regular(path, WORDS).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImportedFileError(
            f"{path} cannot be read ({why}). Write {what} as UTF-8, one a line."
        ) from error
    return as_texts(path, lines, what)
