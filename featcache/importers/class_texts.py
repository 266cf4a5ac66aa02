"""Class vectors in a file of their own: one row a class, or sentences with the class of each.

.npy or .pt  [C, d] or [d, C]   text_weights of TIMO and Tip-Adapter, text_features of TransCLIP
.pth         {features [m, d], labels [m], lab2cname?}  texts of cross_modal_adaptation
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array
from featcache.importers.numpy_files import read_npy
from featcache.importers.text_arrays import as_texts
from featcache.importers.torch_arrays import check_array, check_entries
from featcache.importers.torch_files import read_torch


def read_class_texts(path: Path, width: int) -> dict[str, Array]:
    """Read one vector a class, and the classes' names where the file has them.

    Args:
        path: The file.
        width: Of the features that the vectors shall be compared with.

    Returns:
        text_features [C, d], and classnames [C] where they are there.

    Raises:
        ImportedFileError: If it cannot be read, or neither axis is as wide as the features.
    """
    value = read_npy(path) if path.suffix == ".npy" else read_torch(path)
    if isinstance(value, dict):
        return _from_entries(path, check_entries(path, value, ("features", "labels")))
    rows = check_array(path, value, "class vectors")
    if rows.ndim != 2 or width not in rows.shape or rows.dtype.kind != "f":
        raise ImportedFileError(
            f"{path} should hold one vector of {width} numbers a class, as wide as the features, "
            f"got {rows.dtype} {list(rows.shape)}. Give the texts of the same backbone."
        )
    if rows.shape == (width, width):
        raise ImportedFileError(
            f"{path} is {width} x {width}, so that its shape does not tell classes from the width. "
            f"Save the vectors as text_features, one row a class, in an .npz file."
        )
    return {"text_features": rows if rows.shape[1] == width else rows.T}


def _from_entries(path: Path, content: Mapping[str, Any]) -> dict[str, Array]:
    rows = check_array(path, content["features"], "features")
    labels = check_array(path, content["labels"], "labels")
    fits = rows.ndim == 2 and rows.dtype.kind == "f" and labels.shape == rows.shape[:1]
    if not fits or labels.dtype.kind not in "iu" or not len(rows) or int(labels.min()) < 0:
        raise ImportedFileError(
            f"{path} should hold features [m d] and a label for each, got {rows.dtype} "
            f"{list(rows.shape)} and {labels.dtype} {list(labels.shape)}. Save both again."
        )
    classes = int(labels.max()) + 1
    if len(np.unique(labels)) != classes:
        raise ImportedFileError(
            f"{path} has texts for {len(np.unique(labels))} of {classes} classes. Give some of "
            f"each."
        )
    found: dict[str, Array] = {"text_features": _means(rows, labels, classes)}
    names = content.get("lab2cname")
    if isinstance(names, dict) and set(names) == set(range(classes)):
        found["classnames"] = as_texts(path, [names[i] for i in range(classes)], "class names")
    return found


def _means(
    rows: Float[np.ndarray, "m d"], labels: Shaped[np.ndarray, " m"], classes: int
) -> Float[np.ndarray, "c d"]:
    """Average the unit vectors of each class and make the mean unit again."""
    wide = rows.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):  # what is not finite is refused later
        unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        total = np.zeros((classes, rows.shape[1]), dtype=np.float32)
        np.add.at(total, labels, unit)
        mean: Float[np.ndarray, "c d"] = total / np.linalg.norm(total, axis=1, keepdims=True)
    return mean
