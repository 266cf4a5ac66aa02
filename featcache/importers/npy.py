"""A folder of arrays, a file each, under the names that they would have in one .npz file.

    train_features.npy [r d]    train_labels.npy [r]    train_paths.npy or .txt  [r]
    train16_features.npy        ...                     classnames.npy or .txt   [c]
    test_features.npy           ...                     text_features.npy [c d]

Features may be raw numbers as numpy.memmap writes them (.bin, .raw, .dat, .mmap, .memmap).
"""

import re
from pathlib import Path

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array, Contents
from featcache.importers.numpy_files import read_npy, read_raw
from featcache.importers.places import check_folder, check_total, inside
from featcache.importers.text_arrays import read_lines

RAW = ("bin", "raw", "dat", "mmap", "memmap")
FILE = re.compile(
    rf"(classnames|[A-Za-z0-9][A-Za-z0-9_.-]{{0,60}}?_(?:features|labels|paths))"
    rf"\.(npy|txt|{'|'.join(RAW)})"
)


def read_npy_folder(folder: Path, *, dtype: str | None = None, dim: int | None = None) -> Contents:
    """Read every array of a folder.

    Args:
        folder: Where the files are; others beside them are left out.
        dtype: Type of raw numbers: float16, float32 or float64.
        dim: Width of a row of raw numbers.

    Raises:
        ImportedFileError: If there is nothing to read, or a file is damaged.
    """
    check_folder(folder, "train_features.npy, train_labels.npy, test_features.npy, ...")
    files: dict[str, Path] = {}
    for match in sorted(
        (m for f in folder.iterdir() if (m := FILE.fullmatch(f.name))), key=lambda m: m[0]
    ):
        path = inside(folder, match[0])
        if path is None:
            continue
        if match[1] in files:
            raise ImportedFileError(
                f"{folder} has {files[match[1]].name} and {path.name}, which are the same array. "
                f"Take one of them out."
            )
        files[match[1]] = path
    if not any(name.endswith("_features") for name in files):
        raise ImportedFileError(
            f"{folder} has no file of features. Name them as in train_features.npy, "
            f"test_features.npy and test_labels.npy."
        )
    check_total(folder, files.values())
    arrays: dict[str, Array] = {}
    for name, path in files.items():
        kind = path.suffix[1:]
        if kind == "npy":
            arrays[name] = read_npy(path)
        elif kind == "txt":
            arrays[name] = read_lines(path, name)
        else:
            arrays[name] = read_raw(path, dtype, dim)
    has_sets = any(re.fullmatch(r"train[0-9]+_features", name) for name in files)
    draws = "stored" if has_sets else "sampled"
    return Contents(format="npy", path=folder, arrays=arrays, files=files, draws=draws)
