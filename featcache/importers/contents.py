"""The arrays of an import before they are checked: the result of every reader."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Shaped

Array: TypeAlias = Shaped[np.ndarray, "..."]
Arrays: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The arrays of a file or folder, under the names they would have in an .npz file."""

    path: Path
    """File or folder that the user named."""
    arrays: Arrays
    """train16_features, val_labels, test_paths, classnames, text_features, ..."""
    format: str = ""
    """Name of the format, e.g. tip-adapter; empty for an .npz file."""
    sha256: str = ""
    """Hex digest of the file, or of all arrays if there are several files."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Name of an array -> file it was read from, if that is not `path`."""
    notes: tuple[str, ...] = ()
    """Remarks of the reader, shown to the user and stored with the listing."""
    draws: str = "stored"
    """stored: the few-shot sets are part of the data; sampled: they are drawn from `train`."""
    whole: tuple[str, ...] = ("val", "test")
    """Splits that contain all images of the data set's split, not a sample."""
    templates: tuple[str, ...] = ()
    """Sentences with `{}` for the class name; empty if the data set is not known."""

    def file_of(self, name: str) -> Path:
        """Return the file that an array was read from, for messages."""
        return self.files.get(name, self.path)


def digest_of(arrays: Arrays) -> str:
    """Return the hex sha256 of the names, types, shapes and bytes of arrays.

    It identifies an import of several files: moving the folder or compressing files differently
    does not change it.

    Example:
        >>> import numpy as np
        >>> digest_of({"a": np.zeros(2), "b": np.ones(1)}) == digest_of(
        ...     {"b": np.ones(1), "a": np.zeros(2)}
        ... )
        True
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        head = f"{name}\0{array.dtype.str}\0{array.shape}\0"
        total.update(head.encode("utf-8", "surrogatepass"))
        total.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return total.hexdigest()
