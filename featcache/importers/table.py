"""Parse and check the arrays of an .npz file of features."""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Float32, Float64, Int64, Shaped

from featcache.errors import ImportedFileError
from featcache.importers.arrays import read_arrays
from featcache.importers.contents import Arrays, Contents
from featcache.keys import IMPORTED_TEMPLATE, Listing
from featcache.paths import open_regular
from featcache.text.templates import is_plain

UNIT_TOLERANCE = 0.01
"""Rows whose norm differs from 1 by at most this count as normalised; float16 needs 0.001."""
FIRST = ("train", "val", "test")
"""Order of splits after the stored few-shot sets; further test splits follow by name."""
FLOATS = ("float16", "float32", "float64")
"""Accepted types of features; float64 is stored as float32."""
LENGTHS = (2.0**-60, 2.0**60)
"""Range of row norms whose square is a normal float32."""
BLOCK = 4096
"""Rows compared at once."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The checked content of a file."""

    sha256: str
    """sha256 of the file, in hex."""
    rows: Float16[np.ndarray, "n d"] | Float32[np.ndarray, "n d"]
    """Image features in the widest type of the file; float64 is converted to float32."""
    labels: Int64[np.ndarray, " n"]
    ids: tuple[str, ...]
    splits: Mapping[str, Int64[np.ndarray, " _"]]
    classes: tuple[str, ...]
    text: Float32[np.ndarray, "c d"] | None
    norms: str
    """unit or raw, measured on images and texts."""
    is_half: bool
    """Whether all arrays, including texts, are float16."""
    notes: tuple[str, ...]
    format: str = ""
    """As in `Contents`."""
    draws: str = "stored"
    """As in a listing."""
    templates: tuple[str, ...] = ()
    """Templates of the data set, from which texts are encoded if the file has none."""

    def listing(self, name: str) -> Listing:
        """Return the listing of a data set of this name."""
        return Listing(
            dataset=name,
            root="",
            classes=self.classes,
            ids=self.ids,
            hashes=tuple(f"import:{row}" for row in range(len(self.ids))),
            labels=self.labels,
            splits=self.splits,
            templates=(IMPORTED_TEMPLATE,) if self.text is not None else self.templates,
            default_text="template",
            draws=self.draws,
            notes=self.notes,
        )


def read_table(path: Path) -> Table:
    """Read and check an .npz file.

    Raises:
        ImportedFileError: If it is invalid.
    """
    arrays = read_arrays(path)
    return check_contents(Contents(path=path, arrays=arrays, sha256=_sha256(path)))


def check_contents(contents: Contents) -> Table:
    """Check the arrays of one file or folder against each other.

    Args:
        contents: Arrays from a reader.

    Raises:
        ImportedFileError: If they are invalid; the message names the array and its file.
    """
    path, arrays, file_of = contents.path, contents.arrays, contents.file_of
    keys = _feature_keys(path, arrays)
    _check_widths(path, arrays, keys)
    notes: list[str] = list(contents.notes)
    classes = _classes(file_of("classnames"), arrays, keys, notes)
    names = [f"{prefix}_features" for prefix in keys.values()]
    stored = _stored([arrays[name] for name in names])
    rows, labels, ids, splits, start = [], [], [], {}, 0
    for split, prefix in keys.items():
        part = _features(file_of(f"{prefix}_features"), f"{prefix}_features", arrays, stored)
        rows.append(part)
        file = file_of(f"{prefix}_labels")
        labels.append(_labels(file, prefix, arrays, len(part), len(classes), notes))
        ids += _ids(file_of(f"{prefix}_paths"), split, prefix, arrays, len(part))
        splits[split] = np.arange(start, start + len(part), dtype=np.int64)
        start += len(part)
    text = _text(file_of("text_features"), arrays, len(classes), rows[0].shape[1])
    if not any(s in splits for s in ("val", "test")):
        raise ImportedFileError(
            f"{path} has neither val_features nor test_features, so nothing could be measured. "
            f"Add one of them."
        )
    if text is None and not contents.templates:
        notes.append(
            "The file has no class texts (text_features): only methods that read no text "
            "(linear-probe, ridge, knn, nearest-mean) will run."
        )
    if "test" not in splits:
        notes.append("The file has no test split; heads can be evaluated on val only.")
    everything = np.concatenate(rows)
    names += [] if text is None else ["text_features"]
    notes += _rounded(names, arrays)
    return Table(
        sha256=contents.sha256,
        rows=everything,
        labels=np.concatenate(labels),
        ids=_unique(ids, "{}#{}"),
        splits=splits,
        classes=classes,
        text=text,
        norms=_norms(everything, text),
        is_half=all(arrays[name].dtype.name == "float16" for name in names),
        notes=tuple(notes),
        format=contents.format,
        draws=contents.draws,
        templates=contents.templates,
    )


def _feature_keys(path: Path, arrays: Arrays) -> dict[str, str]:
    """Return split -> prefix of its arrays: train@1, train@2, ..., train, val, test, others."""
    found: dict[tuple[int, int, str], tuple[str, str]] = {}
    for key in arrays:
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,60})_(features|labels|paths)", key)
        if match is None and key != "classnames":
            raise ImportedFileError(
                f"{path} has an array '{key}' whose meaning is unknown; known are classnames, "
                f"text_features and <split>_features, _labels, _paths. Rename it or leave it out."
            )
        if match is None or key == "text_features":
            continue
        prefix, kind = match.groups()
        if f"{prefix}_features" not in arrays:
            raise ImportedFileError(
                f"{path} has '{key}' but no '{prefix}_features' that it would belong to. "
                f"Add the features or leave it out."
            )
        if kind != "features":
            continue
        shots = re.fullmatch(r"train([1-9][0-9]{0,5})", prefix)
        order = FIRST.index(prefix) + 1 if prefix in FIRST else 4
        if shots:
            found[(0, int(shots[1]), prefix)] = (f"train@{shots[1]}", prefix)
        else:
            found[(order, 0, prefix)] = (prefix, prefix)
    if not any(split.startswith("train") for split, _ in found.values()):
        raise ImportedFileError(
            f"{path} has no train_features and no train<K>_features, so nothing can be trained. "
            f"It has: {', '.join(sorted(arrays)[:12]) or 'nothing'}."
        )
    return dict(found[k] for k in sorted(found))


def _check_widths(path: Path, arrays: Arrays, keys: Mapping[str, str]) -> None:
    """Refuse features of different widths, which come from different models."""
    names = [f"{prefix}_features" for prefix in keys.values()]
    names += ["text_features"] if "text_features" in arrays else []
    for name in names:
        array = arrays[name]
        if array.ndim == 2 and 0 in array.shape:
            raise ImportedFileError(
                f"'{name}' in {path} has no rows or no width: {list(array.shape)}. "
                f"Leave it out, with the labels that belong to it."
            )
        if array.ndim != 2 or array.dtype.name not in FLOATS:
            raise ImportedFileError(
                f"'{name}' in {path} should be float16, float32 or float64 [rows width], got "
                f"{array.dtype} {list(array.shape)}. Convert it with .astype(numpy.float32)."
            )
        first = arrays[names[0]]
        if array.shape[1] != first.shape[1]:
            raise ImportedFileError(
                f"'{names[0]}' in {path} is {first.shape[1]} wide and '{name}' {array.shape[1]}: "
                f"they come from different models. Write a file with features of one model only."
            )


def _stored(arrays: Sequence[Shaped[np.ndarray, "..."]]) -> type[np.float16] | type[np.float32]:
    """Return float16 if all arrays are float16, else float32."""
    is_half = all(array.dtype.name == "float16" for array in arrays)
    return np.float16 if is_half else np.float32


def _features(
    path: Path, name: str, arrays: Arrays, stored: type[np.float16] | type[np.float32]
) -> Float[np.ndarray, "r d"]:
    low, high = LENGTHS
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = _lengths(arrays[name])
        good = (lengths > low) & (lengths < high)  # false for nan too
    if not good.all():
        raise ImportedFileError(
            f"Row {int(np.argmin(good))} of '{name}' in {path} is zero, not finite, or too small "
            f"or too large for float32 ({int((~good).sum())} such rows). Leave them out or extract "
            f"them again."
        )
    rows: Float[np.ndarray, "r d"] = arrays[name].astype(stored)
    return rows


def _lengths(rows: Float[np.ndarray, "r d"]) -> Float64[np.ndarray, " r"]:
    squares = np.einsum("rd,rd->r", rows, rows, dtype=np.float64)  # without a float64 copy
    lengths: Float64[np.ndarray, " r"] = np.sqrt(squares)
    return lengths


def _rounded(names: Sequence[str], arrays: Arrays) -> list[str]:
    """Return a note on the error of converting float64, if any."""
    double = [name for name in names if arrays[name].dtype.name == "float64"]
    if not double:
        return []
    lost = 0.0
    for name in double:
        for first in range(0, len(arrays[name]), BLOCK):
            rows = arrays[name][first : first + BLOCK]
            moved = _lengths(rows - rows.astype(np.float32)) / _lengths(rows)
            lost = max(lost, float(moved.max()))
    return [
        f"{', '.join(double)} came in float64 and are stored in float32, in which heads compute; "
        f"a row moved by at most {lost:.1e} of its length."
    ]


def _classes(
    path: Path, arrays: Arrays, keys: Mapping[str, str], notes: list[str]
) -> tuple[str, ...]:
    if "classnames" not in arrays:
        present = [arrays[f"{p}_labels"] for p in keys.values() if f"{p}_labels" in arrays]
        highest = max(
            (int(a.max()) for a in present if a.dtype.kind in "iu" and a.size), default=-1
        )
        if not 0 <= highest < 1_000_000:
            raise ImportedFileError(
                f"{path} has no classnames, and its labels give no number of classes. "
                f"Add an array 'classnames'."
            )
        notes.append("The file names no classes; they are numbered.")
        return tuple(f"class {i}" for i in range(highest + 1))
    names = [name.strip() for name in _texts(path, "classnames", arrays)]
    unreadable = [i for i, name in enumerate(names) if not name or not name.isprintable()]
    if unreadable:
        raise ImportedFileError(
            f"'classnames' in {path} has no readable name for class {unreadable[0]}. Give it one."
        )
    # Well-known lists have such pairs: ImageNet's two missiles are two classes of one name.
    classes = _unique(names, "{} ({})")
    if twice := sorted(n for n, count in Counter(names).items() if count > 1):
        notes.append(f"Class names that occur twice are numbered: {', '.join(twice[:8])}.")
    return classes


def _labels(
    path: Path, prefix: str, arrays: Arrays, rows: int, classes: int, notes: list[str]
) -> Int64[np.ndarray, " r"]:
    name = f"{prefix}_labels"
    if name not in arrays:
        if prefix.startswith("train"):
            raise ImportedFileError(f"{path} has no '{name}'; add a label for each row.")
        notes.append(f"Split {prefix} has no labels.")
        return np.full(rows, -1, dtype=np.int64)
    labels = arrays[name]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        cure = "not one-hot rows" if labels.ndim == 2 else "one a row"
        raise ImportedFileError(
            f"'{name}' in {path} should be integers [{rows}], got {labels.dtype} "
            f"{list(labels.shape)}. Save class indices, {cure}."
        )
    if len(labels) != rows:
        raise ImportedFileError(
            f"'{name}' in {path} has {len(labels)} labels, but '{prefix}_features' has {rows} "
            f"rows. Save one label a row, in the order of the rows."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ImportedFileError(
            f"'{name}' in {path} has labels {low}..{high}, but there are {classes} classes. "
            f"Labels of all splits count from 0 into one list, 'classnames'."
        )
    return labels.astype(np.int64)


def _ids(path: Path, split: str, prefix: str, arrays: Arrays, rows: int) -> list[str]:
    name = f"{prefix}_paths"
    if name not in arrays:
        return [f"{split}/{row}" for row in range(rows)]
    paths = _texts(path, name, arrays)
    if len(paths) != rows:
        raise ImportedFileError(
            f"'{name}' in {path} has {len(paths)} entries for {rows} rows. Save one a row."
        )
    strange = next((text for text in paths if not is_plain(text)), None)
    if strange is not None:
        raise ImportedFileError(
            f"'{name}' in {path} has control characters in {strange[:80]!a}. Save plain paths."
        )
    return paths


def _texts(path: Path, name: str, arrays: Arrays) -> list[str]:
    array = arrays[name]
    if array.dtype.kind != "U" or array.ndim != 1 or array.size == 0:
        raise ImportedFileError(
            f"'{name}' in {path} should be texts on one axis, got {array.dtype} "
            f"{list(array.shape)}. Save them as numpy.array(values, dtype=str)."
        )
    codes = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).view(np.uint32)
    if codes.max(initial=0) > sys.maxunicode:
        raise ImportedFileError(
            f"'{name}' in {path} holds numbers that are no characters. "
            f"Save it again as numpy.array(values, dtype=str)."
        )
    return [str(text) for text in array]


def _unique(names: Sequence[str], numbered: str) -> tuple[str, ...]:
    """Make names unique by numbering the second and later of equal ones."""
    taken, used = set(names), dict.fromkeys(names, 0)
    out = []
    for name in names:
        used[name] += 1
        unique = name
        while used[name] > 1 and unique in taken:
            unique = numbered.format(name, used[name])
            used[name] += unique in taken
        taken.add(unique)
        out.append(unique)
    return tuple(out)


def _text(
    path: Path, arrays: Arrays, classes: int, width: int
) -> Float32[np.ndarray, "c d"] | None:
    if "text_features" not in arrays:
        return None
    text = _features(path, "text_features", arrays, np.float32)
    if text.shape != (classes, width):
        raise ImportedFileError(
            f"'text_features' in {path} should be one row for each of the {classes} classes, got "
            f"{list(text.shape)}. Average the templates of a class before saving."
        )
    return text


def _norms(rows: Float[np.ndarray, "n d"], text: Float32[np.ndarray, "c d"] | None) -> str:
    parts = [rows] if text is None else [rows, text]
    lengths = np.concatenate([_lengths(part) for part in parts])
    return "unit" if bool((np.abs(lengths - 1) <= UNIT_TOLERANCE).all()) else "raw"


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
