"""Caches of Tip-Adapter and of what was built on it, TransCLIP among them.

    keys_{K}shots.pt    [d, C*K]     unit columns: mean of augmented views (Tip-Adapter)
                        [C*K, d]     unit rows (TransCLIP, one view)
                        [n, C*K, d]  n views of each (TransCLIP)
    values_{K}shots.pt  [C*K, C]     one-hot
    val_f.pt, test_f.pt [N, d]       unit rows        val_l.pt, test_l.pt [N]  labels

No class names, no image names, no backbone: the folder is one of a data set, and caches of several
backbones get mixed in it. Which axis of the keys are the shots is read off the values.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array, Contents
from featcache.importers.places import check_folder, check_total, inside
from featcache.importers.torch_arrays import array_in

KEYS = re.compile(r"keys_([1-9][0-9]{0,5})shots\.pt")
SPLITS = ("val", "test")


def read_tip_adapter(folder: Path) -> Contents:
    """Read a folder of keys, values and features.

    Args:
        folder: caches/<dataset>, as Tip-Adapter names it.

    Returns:
        train{K} for every number of shots, val and test, as far as they are there.

    Raises:
        ImportedFileError: If a file is missing, damaged, or does not fit its neighbour.
    """
    check_folder(folder, "keys_16shots.pt, values_16shots.pt, test_f.pt, test_l.pt")
    shots = sorted(int(m[1]) for f in folder.iterdir() if (m := KEYS.fullmatch(f.name)))
    if not shots:
        raise ImportedFileError(
            f"{folder} has no keys_<K>shots.pt, so nothing can be trained. Give the folder that "
            f"holds keys_16shots.pt and values_16shots.pt: mostly caches/<dataset>."
        )
    pairs = {f"train{k}": (f"keys_{k}shots.pt", f"values_{k}shots.pt") for k in shots}
    for split in SPLITS:
        if inside(folder, f"{split}_f.pt") is not None:
            pairs[split] = (f"{split}_f.pt", f"{split}_l.pt")
    paths = {prefix: (_file(folder, a), _file(folder, b)) for prefix, (a, b) in pairs.items()}
    check_total(folder, [file for pair in paths.values() for file in pair])
    arrays: dict[str, Array] = {}
    files: dict[str, Path] = {}
    widths: dict[Path, int] = {}
    notes: list[str] = []
    for prefix, (rows, labels) in paths.items():
        if prefix in SPLITS:
            arrays[f"{prefix}_features"], arrays[f"{prefix}_labels"] = _query(rows, labels, widths)
        else:
            one_hot = array_in(labels)
            arrays[f"{prefix}_labels"] = _labels(labels, one_hot)
            widths[labels] = one_hot.shape[1]
            arrays[f"{prefix}_features"] = _support(rows, labels, len(one_hot), notes)
        files |= {f"{prefix}_features": rows, f"{prefix}_labels": labels}
    _check_classes(widths)
    return Contents(
        format="tip-adapter", path=folder, arrays=arrays, files=files, notes=tuple(notes)
    )


def _file(folder: Path, name: str) -> Path:
    path = inside(folder, name)
    if path is None:
        raise ImportedFileError(
            f"{folder} has no {name}, which belongs to a file beside it. Copy it there, or take "
            f"the other one out."
        )
    return path


def _query(rows: Path, labels: Path, widths: Mapping[Path, int]) -> tuple[Array, Array]:
    found = array_in(labels)
    classes = next(iter(widths.values()))
    if found.dtype.kind in "iu" and found.size and int(found.max()) >= classes:
        raise ImportedFileError(
            f"{labels} has labels up to {int(found.max())}, but {next(iter(widths))} is one-hot "
            f"over {classes} classes. They belong to different data sets; put files of one "
            f"together."
        )
    return array_in(rows), found


def _labels(path: Path, one_hot: Array) -> Int64[np.ndarray, " r"]:
    is_one_hot = (
        one_hot.ndim == 2
        and one_hot.size > 0
        and bool(((one_hot == 0) | (one_hot == 1)).all())
        and bool((one_hot.sum(axis=1, dtype=np.float64) == 1).all())
    )
    if not is_one_hot:
        raise ImportedFileError(
            f"{path} should hold one-hot rows [shots classes], got {one_hot.dtype} "
            f"{list(one_hot.shape)} with other values. Save values with one 1 in each row."
        )
    labels: Int64[np.ndarray, " r"] = one_hot.argmax(axis=1).astype(np.int64)
    return labels


def _support(path: Path, values: Path, rows: int, notes: list[str]) -> Array:
    keys = array_in(path)
    if keys.ndim == 3 and keys.shape[1] == rows and keys.dtype.kind == "f":
        if len(keys) > 1:
            notes.append(f"{path.name} has {len(keys)} views of each image; their mean is stored.")
        return keys[0] if len(keys) == 1 else _mean(keys)
    if keys.ndim != 2 or rows not in keys.shape:
        raise ImportedFileError(
            f"{path} has shape {list(keys.shape)}, but {values.name} has {rows} rows: neither axis "
            f"of the keys fits. The two files come from different runs; take both from one."
        )
    if keys.shape == (rows, rows):
        raise ImportedFileError(
            f"{path} is {rows} x {rows}, so that its shape does not tell rows from columns: both "
            f"the width and the number of shots of {values.name} are {rows}. Take the two files "
            f"out of the folder, or save the keys as rows in an .npz file (train_features)."
        )
    return keys if keys.shape[0] == rows else keys.T


def _mean(views: Float[np.ndarray, "n r d"]) -> Float[np.ndarray, "r d"]:
    """Average unit rows over the views and make the mean unit again, as Tip-Adapter does."""
    mean = views.mean(axis=0, dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):  # what is not finite is refused later
        mean = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    unit: Float[np.ndarray, "r d"] = mean.astype(views.dtype)
    return unit


def _check_classes(widths: Mapping[Path, int]) -> None:
    (first, classes), *others = widths.items()
    for path, other in others:
        if other != classes:
            raise ImportedFileError(
                f"{first} is one-hot over {classes} classes and {path} over {other}. They belong "
                f"to different data sets; put files of one together."
            )
