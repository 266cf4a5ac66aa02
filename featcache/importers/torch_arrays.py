"""Check the type of values read from torch files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array
from featcache.importers.torch_files import read_torch


def array_in(path: Path) -> Array:
    """Read a file that holds one tensor.

    Raises:
        ImportedFileError: If it holds something else or cannot be read.
    """
    return check_array(path, read_torch(path), "the file")


def check_array(path: Path, value: Any, what: str) -> Array:
    """Return a value that is a tensor.

    Args:
        path: The file that it is in.
        value: What was read.
        what: What it is called, for the message.

    Raises:
        ImportedFileError: If it is something else.
    """
    if not isinstance(value, np.ndarray):
        raise ImportedFileError(
            f"{path} should hold a tensor as {what}, got {_kind(value)}. Check that it is the "
            f"file that the features were saved in."
        )
    return value


def check_entries(path: Path, value: Any, names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return a value that is a dict with some entries.

    Args:
        path: The file that it is in.
        value: What was read.
        names: Entries that it must have.

    Raises:
        ImportedFileError: If it is no dict, or lacks one of them.
    """
    if not isinstance(value, dict) or any(name not in value for name in names):
        raise ImportedFileError(
            f"{path} should hold a dict with {', '.join(names)}, got {_kind(value)}. Check that it "
            f"is the file that the features were saved in."
        )
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"one with {', '.join(str(key)[:40] for key in list(value)[:8]) or 'nothing'}"
    return (
        "a tensor" if isinstance(value, np.ndarray) else f"a value of type {type(value).__name__}"
    )
