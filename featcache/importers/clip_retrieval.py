"""Features of clip-retrieval: numbered parts of rows, and a table of metadata beside each.

    img_emb/img_emb_{i}.npy            [n, d]  unit rows, mostly float16
    metadata/metadata_{i}.parquet      [n]     image_path, caption, ...

Row r of a part belongs to row r of the table with the same number, and of no other. A class is
named only by a column of the metadata, or by the folder that an image was in.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from featcache.errors import ImportedFileError, UsageError
from featcache.importers.contents import Array, Contents
from featcache.importers.labelling import USUAL_LABELS, check_split, index_labels
from featcache.importers.numpy_files import read_npy
from featcache.importers.parquet_files import ParquetFile
from featcache.importers.places import check_folder, check_total, inside
from featcache.importers.text_arrays import as_texts
from featcache.wording import Argument, Placeholder

PATH = "image_path"


def folders_by_split(sources: Sequence[str]) -> dict[str, Path]:
    """Read `train=FOLDER` of each source.

    Raises:
        UsageError: If a source names no split, or one that another names too.

    Example:
        >>> folders_by_split(["train=out/a", "test=out/b"])
        {'train': PosixPath('out/a'), 'test': PosixPath('out/b')}
    """
    found: dict[str, Path] = {}
    for source in sources:
        name, equals, text = source.partition("=")
        split = check_split(Path(text), name)
        if not equals or not text or split in found:
            why = f"names {split} twice" if split in found else "names no split"
            raise UsageError(
                f"A folder is given with its split, as train=FOLDER, once each; '{source[:80]}' "
                f"{why}."
            )
        found[split] = Path(text)
    return found


def read_clip_retrieval(sources: Mapping[str, Path], *, label_column: str = "") -> Contents:
    """Read the output folders of `clip-retrieval inference`, one a split.

    Args:
        sources: Split -> its folder, with img_emb and metadata in it.
        label_column: Column of the metadata that holds the class; empty: one that is called so,
            else the folder of each image.

    Raises:
        ImportedFileError: If a part is missing or damaged, or nothing names the classes.
    """
    arrays: dict[str, Array] = {}
    files: dict[str, Path] = {}
    labels: dict[str, Sequence[Any]] = {}
    notes: list[str] = []
    for text, folder in sources.items():
        split = check_split(folder, text)
        parts = _parts(folder)
        check_total(folder, [path for pair in parts for path in pair])
        rows: list[Array] = []
        paths: list[Any] = []
        of_rows: list[Any] = []
        for numbers, table in parts:
            part = _check_rows(numbers, read_npy(numbers))
            told = _metadata(table, label_column, notes)
            if len(told[1]) != len(part):
                raise ImportedFileError(
                    f"{numbers} has {len(part)} rows and {table} has {len(told[1])}: they are not "
                    f"of the same run. Take both folders from one."
                )
            rows.append(part)
            paths += told[0]
            of_rows += told[1]
        _check_widths(parts, rows)
        arrays[f"{split}_features"] = np.concatenate(rows)
        labels[split] = of_rows
        if paths:
            arrays[f"{split}_paths"] = as_texts(parts[0][1], paths, PATH)
        files |= {f"{split}_features": parts[0][0]}
        files |= {f"{split}_{kind}": parts[0][1] for kind in ("labels", "paths")}
    top = next(iter(sources.values()))
    if len(set(notes)) > 1:
        raise ImportedFileError(
            f"The parts of {top} and of the other splits do not name classes alike: "
            f"{' '.join(dict.fromkeys(notes))} Choose what all of them have with ",
            Argument("label_column", Placeholder("COLUMN")),
            ".",
        )
    arrays |= index_labels(top, labels)
    return Contents(
        format="clip-retrieval",
        path=top,
        arrays=arrays,
        files=files,
        notes=tuple(dict.fromkeys(notes)),
        draws="sampled",
    )


def _parts(folder: Path) -> list[tuple[Path, Path]]:
    """Pair embeddings and metadata by part number, in ascending order."""
    check_folder(folder, "img_emb and metadata")
    rows = _numbered(folder, "img_emb", r"img_emb_([0-9]{1,9})\.npy")
    tables = _numbered(folder, "metadata", r"metadata_([0-9]{1,9})\.parquet")
    alone = sorted(set(rows) ^ set(tables))
    if alone or not rows:
        name = alone[0] if alone else 0
        what = "metadata" if name in rows else "img_emb"
        raise ImportedFileError(
            f"{folder} has {len(rows)} parts in img_emb and {len(tables)} in metadata; part {name} "
            f"is missing in {what}. Give the output folder of a finished run, with image "
            f"embeddings and metadata."
        )
    return [(rows[number], tables[number]) for number in sorted(rows)]


def _numbered(folder: Path, name: str, pattern: str) -> dict[int, Path]:
    place = inside(folder, name)
    found: dict[int, Path] = {}
    for file in sorted(place.iterdir()) if place is not None and place.is_dir() else ():
        match = re.fullmatch(pattern, file.name)
        path = inside(folder, f"{name}/{file.name}") if match else None
        if match and path is not None:
            if int(match[1]) in found:
                raise ImportedFileError(
                    f"{found[int(match[1])]} and {path} have one number. Keep the files of one run."
                )
            found[int(match[1])] = path
    return found


def _check_rows(path: Path, rows: Array) -> Shaped[np.ndarray, "n d"]:
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise ImportedFileError(
            f"{path} should hold rows of floating-point numbers, got {rows.dtype} "
            f"{list(rows.shape)}. Give the folder that clip-retrieval wrote."
        )
    return rows


def _check_widths(parts: Sequence[tuple[Path, Path]], rows: Sequence[Array]) -> None:
    for (path, _), part in zip(parts, rows, strict=True):
        if part.shape[1] != rows[0].shape[1]:
            raise ImportedFileError(
                f"{parts[0][0]} has rows {rows[0].shape[1]} wide and {path} {part.shape[1]}: they "
                f"come from different models. Give the output of one run."
            )


def _metadata(path: Path, label_column: str, notes: list[str]) -> tuple[list[Any], Sequence[Any]]:
    """Return the path and the label of every row; no paths where there is no such column."""
    with ParquetFile(path) as table:
        names = [column.name for column in table.columns()]
        if label_column and label_column not in names:
            raise ImportedFileError(
                f"{path} has no column '{label_column}'; it has: {', '.join(names[:20])}."
            )
        labelled = [name for name in names if name.lower() in USUAL_LABELS]
        chosen = label_column or (labelled[0] if len(labelled) == 1 else "")
        paths = table.values(PATH) if PATH in names else []
        labels = table.values(chosen) if chosen else _folders(paths)
    if labels:
        by = f"column '{chosen}' of the metadata" if chosen else "folder of each image"
        notes.append(f"Classes are taken from the {by}.")
    elif table.rows:
        raise ImportedFileError(
            f"Nothing in {path} names a class: no column is called label, and images do not lie "
            "in folders. Name the column with ",
            Argument("label_column", Placeholder("COLUMN")),
            f"; the columns are: {', '.join(names[:20])}.",
        )
    return paths, labels


def _folders(paths: Sequence[Any]) -> list[str]:
    """Return the folder that each image is in; nothing where one of them is in none."""
    parents = [str(path).replace("\\", "/").rpartition("/")[0] for path in paths]
    names = [parent.rpartition("/")[2] for parent in parents]
    return names if all(names) else []
