"""Features in parquet tables, as the `datasets` of Hugging Face and others write them.

    a column of lists of numbers     the features: list<float>, fixed_size_list<float>[d]
    a column of numbers or words     the labels
    a column of texts                paths or ids of the images, if there is one
    a column of texts                the split of each row, if the files do not tell it

Which column is which is read off names and types where that is plain; otherwise the user says it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array, Contents
from featcache.importers.labelling import (
    SPLITS,
    USUAL_LABELS,
    check_split,
    index_labels,
    split_name,
)
from featcache.importers.parquet_files import Column, ParquetFile
from featcache.importers.places import check_total, inside
from featcache.importers.text_arrays import as_texts
from featcache.wording import Argument, Placeholder

USUAL_PATHS = ("image_path", "path", "file_name", "filename", "id", "image_id", "key")
USUAL_SPLITS = ("split", "subset", "partition")
KNOWN_SPLITS = frozenset({"train", "val", "test", *SPLITS})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column holds what; one that is empty is found by name and type."""

    features: str = ""
    label: str = ""
    path: str = ""
    split: str = ""


def files_by_split(sources: Sequence[str]) -> dict[str, list[Path]]:
    """Assign the tables of a user to splits.

    Args:
        sources: `train=FILE`, a folder, or one FILE. In a folder, or its subfolder `data`, the word
            before the first dash or dot of a file's name is its split: train-00000-of-00002.

    Returns:
        Split -> its files in the order of their names; "" where nothing names a split.

    Raises:
        ImportedFileError: If there are none.

    Example:
        >>> files_by_split(["train=a.parquet", "test=b.parquet"])
        {'train': [PosixPath('a.parquet')], 'test': [PosixPath('b.parquet')]}
    """
    found: dict[str, list[Path]] = {}
    for source in sources:
        name, equals, text = source.partition("=")
        path = Path(text if equals else source)
        if equals and "/" not in name:
            split = check_split(path, name)
            found.setdefault(split, []).extend(_tables(path) if path.is_dir() else [path])
        elif Path(source).is_dir():
            for table in _tables(Path(source)):
                word = split_name(table.name.replace("-", ".").split(".")[0])
                found.setdefault(word if word in KNOWN_SPLITS else "", []).append(table)
        else:
            found.setdefault("", []).append(Path(source))
    return found


def _tables(folder: Path) -> list[Path]:
    for place in (folder, inside(folder, "data")):
        if place is None or not place.is_dir():
            continue
        names = sorted(f.name for f in place.glob("*.parquet"))
        if names:
            return [path for name in names if (path := inside(place, name)) is not None]
    raise ImportedFileError(f"{folder} holds no .parquet file. Give the folder that does.")


def read_parquet(sources: Sequence[str], columns: Columns | None = None) -> Contents:
    """Read the tables of a data set.

    Args:
        sources: As for `files_by_split`.
        columns: Which column holds what, as far as the user says.

    Raises:
        ImportedFileError: If a file is refused, or a column is missing or ambiguous.
    """
    files = files_by_split(sources)
    every = [path for paths in files.values() for path in paths]
    top = Path(sources[0].partition("=")[2] or sources[0]) if len(sources) == 1 else every[0].parent
    check_total(top, every)
    rows: dict[str, list[Array]] = {}
    labels: dict[str, list[Any]] = {}
    paths: dict[str, list[Any]] = {}
    first: dict[str, Path] = {}
    chosen = columns or Columns()
    names: tuple[str, ...] = ()
    for given, group in files.items():
        for path in group:
            with ParquetFile(path) as table:
                chosen = choose(path, table.columns(), chosen, needs_split=not given)
                own_names = table.class_names(chosen.label) if chosen.label else ()
                if names and own_names and names != own_names:
                    raise ImportedFileError(
                        f"{path} has other class names than {every[0]}, or another order of them, "
                        f"so that its labels mean other classes. Import files of one data set."
                    )
                names = names or own_names
                part = table.features(chosen.features)
                splits = table.values(chosen.split) if not given else [given] * len(part)
                values = {n: table.values(n) for n in (chosen.label, chosen.path) if n}
            for split, index in _groups(path, splits).items():
                rows.setdefault(split, []).append(part[index])
                first.setdefault(split, path)
                if chosen.label:
                    labels.setdefault(split, []).extend(values[chosen.label][i] for i in index)
                if chosen.path:
                    paths.setdefault(split, []).extend(values[chosen.path][i] for i in index)
    arrays: dict[str, Array] = {}
    where: dict[str, Path] = {}
    for split, parts in rows.items():
        _check_parts(first[split], parts)
        arrays[f"{split}_features"] = np.concatenate(parts)
        where |= {f"{split}_{kind}": first[split] for kind in ("features", "labels", "paths")}
    arrays |= index_labels(top, labels, names)
    arrays |= {f"{w}_paths": as_texts(first[w], p, f"paths of {w}") for w, p in paths.items()}
    return Contents(format="parquet", path=top, arrays=arrays, files=where, draws="sampled")


def choose(path: Path, columns: Sequence[Column], wanted: Columns, *, needs_split: bool) -> Columns:
    """Settle which column holds what.

    Args:
        path: The file, for messages.
        columns: Its columns.
        wanted: What the user chose, or `choose` settled for an earlier file of the data set.
        needs_split: Whether a column has to hold the split of each row.

    Raises:
        ImportedFileError: If a column is missing, or several could be meant.
    """
    kinds = {column.name: column.kind for column in columns}
    for name in (wanted.features, wanted.label, wanted.path, wanted.split):
        if name and name not in kinds:
            raise ImportedFileError(f"{path} has no column '{name}'; it has: {_listed(kinds)}.")
    if wanted.features and kinds[wanted.features] != "features":
        raise ImportedFileError(
            f"Column '{wanted.features}' of {path} holds no lists of floating-point numbers. Give "
            "another with ",
            Argument("features_column"),
            f"; the columns are: {_listed(kinds)}.",
        )
    features = wanted.features or _one(path, kinds, ["features"], (), "features_column")
    if not features:
        raise ImportedFileError(
            f"{path} has no column of lists of floating-point numbers, so it holds no features; "
            f"its columns are: {_listed(kinds)}. Save them as list<float>."
        )
    others = {name: kind for name, kind in kinds.items() if name != features}
    split = wanted.split
    if needs_split and not split:
        split = _usual(others, ["text"], USUAL_SPLITS)
        if not split:
            raise ImportedFileError(
                f"Nothing says which rows of {path} are for training and which for testing. Give "
                "files as train=FILE and test=FILE, or name the column that tells it with ",
                Argument("split_column", Placeholder("COLUMN")),
                f"; the columns are: {_listed(kinds)}.",
            )
    found = replace(wanted, features=features, split=split)
    if not wanted.label:
        found = replace(
            found, label=_one(path, others, ["integer", "text"], USUAL_LABELS, "label_column")
        )
    if not wanted.path:
        found = replace(found, path=_usual(others, ["text"], USUAL_PATHS))
    return found


def _one(
    path: Path, kinds: Mapping[str, str], wanted: Sequence[str], usual: Sequence[str], argument: str
) -> str:
    """Return the one column that can be meant, or "" where there is none."""
    fitting = [name for name, kind in kinds.items() if kind in wanted]
    if usual:
        fitting = [name for name in fitting if name.lower() in usual]
    if len(fitting) > 1:
        raise ImportedFileError(
            f"{path} has several columns that could be meant: {', '.join(fitting[:8])}. Choose "
            "one with ",
            Argument(argument, fitting[0]),
            ".",
        )
    return fitting[0] if fitting else ""


def _usual(kinds: Mapping[str, str], wanted: Sequence[str], usual: Sequence[str]) -> str:
    """Return the first column with one of the usual names, or ""."""
    by_name = {name.lower(): name for name, kind in kinds.items() if kind in wanted}
    return next((by_name[name] for name in usual if name in by_name), "")


def _listed(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in list(kinds.items())[:20])


def _groups(path: Path, splits: Sequence[Any]) -> dict[str, list[int]]:
    """Group row numbers by the split of each."""
    found: dict[str, list[int]] = {}
    known: dict[Any, str] = {}
    for row, text in enumerate(splits):
        if text is None:
            raise ImportedFileError(
                f"Row {row} of {path} names no split. Leave it out, or write its split."
            )
        if text not in known:
            known[text] = check_split(path, str(text))
        found.setdefault(known[text], []).append(row)
    return found


def _check_parts(path: Path, parts: Sequence[Array]) -> None:
    widths = sorted({part.shape[1] for part in parts if len(part)})
    if len(widths) > 1:
        raise ImportedFileError(
            f"{path} and the other files of its split have rows of {widths[0]} and {widths[1]} "
            f"numbers: they come from different models. Give files of one model."
        )
