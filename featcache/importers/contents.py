"""Arrays as they were read, whatever the format: what every reader of this package returns."""

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
    """The arrays of a file or folder, under the names that they have in an .npz file."""

    path: Path
    """What the user named: a file, or the folder of several."""
    arrays: Arrays
    """train16_features, val_labels, test_paths, classnames, text_features, ..."""
    form: str = ""
    """Format, as its import is called: tip-adapter, ...; empty for an .npz file."""
    sha256: str = ""
    """Of the file, or of the arrays where there are several files; in hex."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Name of an array -> the file that it was read from, where that is not `path`."""
    notes: tuple[str, ...] = ()
    """What the reader noticed, for people."""
    draws: str = "stored"
    """stored: the few-shot sets are the file's; sampled: shots are drawn from `train` by seed."""
    whole: tuple[str, ...] = ("val", "test")
    """Splits that hold every image that the data set has there, not a draw from them."""
    templates: tuple[str, ...] = ()
    """Sentences for the class names; empty where nobody said what data set it is."""

    def file_of(self, name: str) -> Path:
        """Return the file that an array was read from, for messages."""
        return self.files.get(name, self.path)


def digest_of(arrays: Arrays) -> str:
    """Return the sha256 of arrays, in hex: of their names, types, shapes and bytes.

    Features that come in several files are named by it, so that a folder that was moved, or saved
    again with other compression, is still the same import.

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
